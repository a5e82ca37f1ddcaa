"""The `csv:` command that is probably meant: for messages alone, nothing is read by it."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlcas.data.columns import STANDARD, candidates
from rlcas.data.decode import IMAGE_SUFFIXES
from rlcas.data.files import folders_in, visible
from rlcas.data.rows import Rows, read_rows
from rlcas.errors import UserError

TABLE_SUFFIXES = (".csv", ".tsv")
SHEET_SUFFIXES = (".xlsx", ".xls", ".ods")
MOST_FOLDERS = 300
MOST_VALUES = 20
GOLDEN = (5**0.5 - 1) / 2
FIRST_ROWS = 500
"""How much is looked at for a message."""


def table_command(root: Path) -> str:
    """Return how the images in `root` are read by a table: the flags for the best one beside them, or what to write."""
    for folder in dict.fromkeys((root, root.parent)):
        files = visible(folder)
        tables = [rows for path in files if path.suffix.lower() in TABLE_SUFFIXES and (rows := _rows(path))]
        if tables:
            return f"use {flags_for(max(tables, key=_fitness))}"
        if sheets := [path for path in files if path.suffix.lower() in SHEET_SUFFIXES]:
            return f"save {sheets[0]} as CSV and use --data csv:FILE"
    return "write a table of path and label, and use --data csv:FILE"


def table_of(root: Path) -> str | None:
    """Return the flags of a table in `root` whose images are found below it; None: there is none."""
    tables = [rows for path in visible(root) if path.suffix.lower() in TABLE_SUFFIXES and (rows := _rows(path))]
    for rows in tables:
        roles = candidates(rows)
        if len(roles["path"]) == 1 and (roles["label"] or roles["one_hot"]):
            place = roles["path"][0]
            values = some_cells(rows, place)
            as_they_are = any(os.path.isfile(os.path.join(root, value)) for value in values)  # noqa: PTH113, PTH118
            if as_they_are or pattern_of(root, rows.columns[place], values):
                return flags_for(rows)
    return None


def flags_for(rows: Rows) -> str:
    """Return `--data csv:` with the columns and the place of the images, as far as they can be recognised."""
    roles = candidates(rows)
    names = {role: [rows.columns[place] for place in places] for role, places in roles.items()}
    labels = names["label"][:1] or ["+".join(names["one_hot"]) or "COLUMN"]
    stated = {
        "path": (names["path"] or ["COLUMN"])[0],
        "label": labels[0],
        "patient": (names["patient"] or [""])[0],
    }
    columns = ",".join(f"{role}={name}" for role, name in stated.items() if name and name != STANDARD[role])
    flags = [
        f"--data {shlex.quote(f'csv:{rows.path}')}",
        *([f"--dataset.columns {shlex.quote(columns)}"] if columns else []),
    ]
    values = some_cells(rows, roles["path"][0]) if roles["path"] else []
    if lies := pattern_of(rows.path.parent, stated["path"], values):
        flags.append(f"--dataset.images {lies}")
    others = f" (or label={' or '.join(names['label'][1:])})" if len(names["label"]) > 1 else ""
    return " ".join(flags) + others


def some_cells(rows: Rows, place: int) -> list[str]:
    """Return some cells of a column, from all over the table: its images may be in several folders."""
    # Steps of the golden ratio fall in with no period: every second line may be of one folder.
    places = {int(i * GOLDEN % 1 * len(rows.cells)) for i in range(MOST_VALUES)} if rows.cells else set()
    return [cell for i in sorted(places) if (cell := rows.cells[i][place])]


def pattern_of(folder: Path, column: str, values: Sequence[str]) -> str | None:
    """Return the pattern, quoted for a shell, that finds the images of some cells below `folder`; None: none is found.

    None also if the paths are right without a pattern.
    """
    folders = list(itertools.islice(_folders_below(folder), MOST_FOLDERS))
    suffixes = ("", *IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES))
    found: set[tuple[tuple[str, ...], str]] = set()
    for value in list(dict.fromkeys(filter(None, values)))[:MOST_VALUES]:
        tries = ((place, suffix) for place in folders for suffix in suffixes)
        hit = next(((p, s) for p, s in tries if os.path.isfile(os.path.join(p, value + s))), None)  # noqa: PTH113, PTH118
        if hit is not None:
            found.add((hit[0].relative_to(folder).parts, hit[1]))
    depths = {len(parts) for parts, _ in found}
    if len(depths) != 1 or found == {((), "")}:
        return None
    levels = [_common(level) for level in zip(*(parts for parts, _ in found), strict=True)]
    endings = {suffix for _, suffix in found}
    return shlex.quote("/".join([*levels, f"{{{column}}}{endings.pop() if len(endings) == 1 else '.*'}"]))


def _rows(path: Path) -> Rows | None:
    try:
        return read_rows(path, limit=FIRST_ROWS)
    except UserError:
        return None


def _fitness(rows: Rows) -> tuple[bool, bool, bool, bool, int]:
    roles = candidates(rows)
    named = bool(roles["path"]), bool(roles["label"] or roles["one_hot"]), bool(roles["patient"])
    # A form for submissions has the same columns as the labels for training.
    return *named, "train" in rows.path.name.lower(), len(rows.cells)


def _folders_below(folder: Path, levels: int = 3) -> Iterator[Path]:
    yield folder
    if levels:
        for child in folders_in(folder):
            yield from _folders_below(child, levels - 1)


def _common(names: Sequence[str]) -> str:
    """Return the names as one pattern: part_1, part_2 as part_*."""
    if len(set(names)) == 1:
        return names[0]
    start = _common_start(names)
    return f"{start}*{_common_start([name[len(start) :][::-1] for name in names])[::-1]}"


def _common_start(names: Sequence[str]) -> str:
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike)
