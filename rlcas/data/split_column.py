"""Which column of a table says the split of each line, and which words its cells may be."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from rlcas.data.rows import Rows
from rlcas.data.source import SPLIT_ALIASES, SplitName
from rlcas.data.words import SPLIT_WORDS, split_of, words_of
from rlcas.errors import UserError

NAMES = ("set", "sets", "subset", "partition", "phase", "dataset", "usage", "fold", "stage", "mode", "group")
"""Names of columns, without case and punctuation, that are the split if their cells are."""
NAME_ENDS = ("split", "splits", "splitname", "subset", "partition")
MOST_WORDS = 20
"""Different cells above which a column does not say splits."""


def split_columns(rows: Rows, others: Collection[str]) -> list[int]:
    """Return the places of the columns that may be the split: those named so, else those with cells such as train.

    Args:
        rows: the table.
        others: names of columns that are something else.
    """
    named = [i for i, name in enumerate(rows.columns) if name.lower() == "split"]
    return named or [
        i
        for i, name in enumerate(rows.columns)
        if _is_named(name) and name not in others and _says_splits(set(rows.column(i)))
    ]


def split_in(where: str, cell: str) -> SplitName:
    """Return the split that a cell says.

    Raises:
        UserError: it says none; the message begins with `where`.
    """
    if (split := split_of(cell)) is None:
        raise UserError(f"{where}: split {cell!r} is unknown: use train, val or test")
    return split


def words_note(cells: Sequence[str]) -> tuple[str, ...]:
    """Return a note on the cells of the split column that are other words than train, val and test."""
    unusual = [cell for cell in dict.fromkeys(cells) if cell.lower() not in SPLIT_ALIASES]
    return (
        (f"cells are read as splits: {', '.join(f'{cell} as {split_of(cell)}' for cell in unusual)}",)
        if unusual
        else ()
    )


def unused_notes(rows: Rows, unused: Collection[int]) -> Iterator[str]:
    """Yield a note on each column that is not used, but whose cells seem to say splits."""
    for place in sorted(unused):
        name, cells = rows.columns[place], sorted(set(rows.column(place)) - {""})
        saying = [cell for cell in cells[: MOST_WORDS + 1] if not SPLIT_WORDS.keys().isdisjoint(words_of(cell))]
        if saying and len(cells) <= MOST_WORDS and (_is_named(name) or len(saying) == len(cells)):
            yield (
                f"column {name} seems to say splits ({', '.join(cells)}), and is not used: --dataset.columns "
                f"split={name} uses it, where its cells are train, val or test"
            )


def _is_named(name: str) -> bool:
    plain = re.sub(r"[\W_]", "", name.lower())
    return plain in NAMES or plain.endswith(NAME_ENDS)


def _says_splits(cells: Collection[str]) -> bool:
    # A column of one word says which list a line is from, as in files of a split each.
    if len(cells) > MOST_WORDS:
        return False
    found = {split_of(cell) for cell in cells}
    return None not in found and "train" in found and len(found) > 1
