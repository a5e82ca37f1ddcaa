"""Where the image of a table's line is: its path column, or a pattern with columns in braces and `*`."""

from __future__ import annotations

import bisect
import fnmatch
import functools
import glob
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from rlcas.data.columns import Columns, place_of
from rlcas.data.decode import IMAGE_SUFFIXES, is_listed_image
from rlcas.data.masks import without_masks
from rlcas.data.rows import Rows
from rlcas.data.suggest import pattern_of, some_cells
from rlcas.errors import UserError

COLUMN = re.compile(r"\{([^{}]+)\}")
MAGIC = re.compile(r"[*?[]")
Cells = Sequence[str]


def image_finder(rows: Rows, columns: Columns, pattern: str | None) -> Callable[[str, Cells], Path]:
    """Return (where the line is, its cells) -> its image file.

    Args:
        rows: the table.
        columns: which of its columns are meant.
        pattern: `dataset.images`; None: the path column is relative to the table's folder.

    Raises:
        UserError: the pattern names no column of the table, or no folder. The function returned raises it if a
            line's image does not exist, or if several files match; the message names the pattern.
    """
    folder = rows.path.parent
    if pattern is None:
        return functools.partial(_by_path, rows, columns, str(folder))
    if not COLUMN.search(pattern):
        pattern = f"{pattern.rstrip('/')}/{{path}}"
    levels = pattern.split("/")
    first = next(i for i, level in enumerate(levels) if COLUMN.search(level))
    start, rest = "/".join(levels[:first]), "/".join(levels[first:])
    start = "/" if pattern.startswith("/") and not start else start
    places = {name: _place(rows, columns, name) for name in COLUMN.findall(rest)}
    search = _Search(_roots(rows, start, pattern))

    def find(where: str, cells: Cells) -> Path:
        for place in places.values():
            if not cells[place]:
                raise UserError(f"{where}: {rows.columns[place]} is empty: fill it in")
        found = _found(search, rest, places, cells) or _found(
            search, rest, places, list(map(_with_slashes, cells))
        )
        # `{case}*.png` means the picture, and not the masks beside it.
        found = without_masks(found)[0] if len(found) > 1 else found
        if len(found) == 1:
            return found[0]
        tried = f"{folder / start / _filled(rest, places, cells)} (dataset.images {pattern})"
        if found:
            listed = ", ".join(map(str, found[:3]))
            raise UserError(f"{where}: {len(found)} files match {tried}: {listed}: narrow the pattern")
        raise UserError(f"{where}: no image file {tried}: correct the pattern, or the line")

    return find


def _by_path(rows: Rows, columns: Columns, folder: str, where: str, cells: Cells) -> Path:
    assert columns.path is not None
    if not cells[columns.path]:
        raise UserError(f"{where}: {rows.columns[columns.path]} is empty: fill it in")
    image = os.path.join(folder, cells[columns.path])  # noqa: PTH118  # a Path for each try is slow
    # pathlib's raises if the name is too long for the disk
    for tried in (image, os.path.join(folder, _with_slashes(cells[columns.path]))):  # noqa: PTH118
        if os.path.isfile(tried):  # noqa: PTH113
            return Path(tried)
    column = rows.columns[columns.path] if rows.has_header else "path"
    values = [cells[columns.path], *some_cells(rows, columns.path)]
    if lies := pattern_of(rows.path.parent, column, values):
        raise UserError(f"{where}: no image file {image}: images lie elsewhere, add --dataset.images {lies}")
    raise UserError(
        f"{where}: no image file {image}: correct the path (it is relative to the table), or say where the images are "
        "with --dataset.images"
    )


def _roots(rows: Rows, start: str, pattern: str) -> list[Path]:
    """Return the folders that the part of the pattern before its first column names."""
    # The table's own folder is no pattern, whatever characters its name has.
    whole = Path(glob.escape(str(rows.path.parent)), Path(start).expanduser())
    roots = [path for name in sorted(glob.glob(str(whole))) if (path := Path(name)).is_dir()]  # noqa: PTH207
    if not roots:
        # As typed by somebody for whom it was relative to the working folder.
        near = glob.glob(start) if start else []  # noqa: PTH207
        fix = f"write {os.path.relpath(start, rows.path.parent)} for {start}" if near else "correct it"
        raise UserError(
            f"dataset.images {pattern}: there is no folder {rows.path.parent / start}: {fix} (it is relative to the "
            "table)"
        )
    return roots


def _place(rows: Rows, columns: Columns, name: str) -> int:
    if name == "path" and columns.path is not None:
        return columns.path
    return place_of(rows, name, "dataset.images column")


def _with_slashes(cell: str) -> str:
    # As Windows writes paths; a name may have a backslash elsewhere, and is tried first.
    return cell.replace("\\", "/")


def _found(search: _Search, rest: str, places: dict[str, int], cells: Cells) -> list[Path]:
    if MAGIC.search(rest):
        return search.matches(_filled(rest, places, [glob.escape(cell) for cell in cells]))
    return search.plain(_filled(rest, places, cells))


def _filled(rest: str, places: dict[str, int], cells: Cells) -> str:
    return COLUMN.sub(lambda found: cells[places[found[1]]], rest)


class _Search:
    """Files below some folders; a folder is listed once."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._listings: dict[str, list[str]] = {}

    def plain(self, name: str) -> list[Path]:
        """Return the files of this name."""
        candidates = [os.path.join(root, name) for root in self._roots]  # noqa: PTH118
        return [Path(path) for path in candidates if os.path.isfile(path)]  # noqa: PTH113

    def matches(self, pattern: str) -> list[Path]:
        """Return the image files that match a pattern, in which cells are escaped."""
        found = [str(root) for root in self._roots]
        for level in pattern.split("/"):
            found = [path for folder in found for path in self._below(folder, level)]
        files = [path for path in found if os.path.isfile(path)]  # noqa: PTH113
        usual = [Path(path) for path in files if path.lower().endswith(IMAGE_SUFFIXES)]
        return usual or [Path(path) for path in files if is_listed_image(path)]

    def _below(self, folder: str, level: str) -> list[str]:
        found = MAGIC.search(level)
        if found is None:
            return [os.path.join(folder, level)]  # noqa: PTH118
        if folder not in self._listings:
            # What is no folder has nothing in it.
            listing = os.listdir(folder) if os.path.isdir(folder) else []  # noqa: PTH112, PTH208
            self._listings[folder] = sorted(name for name in listing if not name.startswith("."))
        listing = self._listings[folder]
        # Sorted, so that the names with the literal start are together: a folder may have half a million.
        literal, tail = level[: found.start()], level[found.start() :]
        begin, end = bisect.bisect_left(listing, literal), bisect.bisect_left(listing, f"{literal}\U0010ffff")
        # The tail alone, which most lines share: fnmatch compiles each pattern.
        names = [name for name in listing[begin:end] if fnmatch.fnmatchcase(name[len(literal) :], tail)]
        return [os.path.join(folder, name) for name in names]  # noqa: PTH118
