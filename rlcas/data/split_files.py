"""Tables with a file for each split, as `ImageNet_LT_train.txt`, `_val.txt` and `_test.txt`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rlcas.config import DatasetConfig
from rlcas.data.files import visible
from rlcas.data.rows import Rows, read_rows
from rlcas.data.source import SplitName
from rlcas.data.words import SPLIT_WORDS
from rlcas.errors import UserError

SPLIT_ORDER: tuple[SplitName, ...] = ("train", "val", "test", "all")
_ENDS_IN_TRAIN = re.compile(r"(?P<start>.*?)(?:train|training)", re.I)


def split_files(path: Path, dataset: DatasetConfig) -> tuple[Mapping[SplitName, Path], tuple[str, ...]]:
    """Return the table alone, or, if its name ends in train, with those beside it of other splits; and notes on them.

    A table of another split has the same columns. `dataset.columns` split, even none, reads the table alone.

    Raises:
        UserError: two files are one split.
    """
    alone: Mapping[SplitName, Path] = {"all": path}
    name = _ENDS_IN_TRAIN.fullmatch(path.stem)
    if name is None or "split" in dataset.columns or not path.is_file():
        return alone, ()
    first = read_rows(path, limit=1)
    if "split" in map(str.lower, first.columns):
        return alone, ()
    found: dict[SplitName, Path] = {"train": path}
    left_out = []
    for other in _others(path, name["start"]):
        split = SPLIT_WORDS[_word(other, name["start"])]
        if not _alike(first, read_rows(other, limit=1)):
            left_out.append(other.name)
        elif split in found:
            raise UserError(
                f"{path.parent} has {found[split].name} and {other.name}, which are one split, {split}: move one away, "
                "or read the table alone with --dataset.columns split=none"
            )
        else:
            found[split] = other
    notes = (
        [f"{', '.join(left_out)} beside the table is left out, because its columns are others"]
        if left_out
        else []
    )
    if len(found) == 1:
        return alone, tuple(notes)
    in_order = {split: found[split] for split in SPLIT_ORDER if split in found}
    listed = ", ".join(f"{split} {file.name}" for split, file in in_order.items())
    notes.append(f"a file for each split: {listed}; --dataset.columns split=none reads {path.name} alone")
    return in_order, tuple(notes)


def _others(path: Path, start: str) -> list[Path]:
    return [
        other
        for other in visible(path.parent)
        if other != path
        and other.suffix.lower() == path.suffix.lower()
        and other.stem.startswith(start)
        and _word(other, start) in SPLIT_WORDS
        and other.is_file()
    ]


def _word(path: Path, start: str) -> str:
    return path.stem[len(start) :].lower()


def _alike(first: Rows, second: Rows) -> bool:
    if first.has_header != second.has_header:
        return False
    if not first.has_header:
        return len(first.columns) == len(second.columns)
    return set(map(str.lower, first.columns)) == set(map(str.lower, second.columns))
