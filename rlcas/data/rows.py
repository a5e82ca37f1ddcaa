"""The text of a table: CSV with any usual separator, with or without a header, and lists `PATH LABEL`."""

from __future__ import annotations

import csv
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rlcas.data.decode import is_listed_image
from rlcas.errors import UserError

SEPARATORS = (",", ";", "\t", "|")
"""Of a tie between two in the first line, the earlier one separates."""
PATH_AND_LABEL = ("path", "label")


@dataclass(frozen=True, slots=True)
class Rows:
    """The cells of a table as text."""

    path: Path
    columns: tuple[str, ...]
    """Names; numbers from 1 if there is no header."""
    has_header: bool
    lines: Sequence[int]
    """[N] the line of the file that each row ends in."""
    cells: Sequence[Sequence[str]]
    """[N][columns], without white space at either end."""

    def column(self, index: int) -> list[str]:
        """Return the cells [N] of a column."""
        return [row[index] for row in self.cells]


def read_rows(path: Path, *, has_header: bool | None = None, limit: int | None = None) -> Rows:
    """Return the rows of a table, which may be quoted, begin with a byte-order mark, and lack cells at a line's end.

    Args:
        path: the file.
        has_header: whether its first line has the columns' names; None: unless a cell of it is an image file's name.
        limit: number of rows that are read; None: all.

    Raises:
        UserError: it is no file, no table in UTF-8, or a line has more cells than the first one.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file: check the path after csv:")
    try:
        # utf-8-sig also reads files that begin with a byte-order mark, as Excel's do.
        with path.open(newline="", encoding="utf-8-sig") as file:
            read = list(itertools.islice(_split_lines(file), None if limit is None else limit + 1))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not CSV in UTF-8 ({error}): save it as such") from error
    if not read:
        raise UserError(f"{path} lists no images: write a line for each")
    first = read[0][1]
    if has_header is None:
        has_header = not any(is_listed_image(os.path.join(path.parent, cell)) for cell in first)  # noqa: PTH118
    columns = tuple(first) if has_header else _numbers(first)
    rows = read[1:] if has_header else read
    for line, cells in rows:
        if any(cells[len(columns) :]):
            raise UserError(_too_long(path, line, columns, cells))
    return Rows(
        path=path,
        columns=columns,
        has_header=has_header,
        lines=[line for line, _ in rows],
        # Separators at a line's end may be more than in the first line.
        cells=[(row + [""] * (len(columns) - len(row)))[: len(columns)] for _, row in rows],
    )


def comment_hint(columns: Sequence[str]) -> str:
    """Return what to do with a first line that may be a comment; empty if it is none."""
    return "; if line 1 is a comment, remove it" if columns[0].startswith("#") else ""


def _too_long(path: Path, line: int, columns: Sequence[str], cells: Sequence[str]) -> str:
    return (
        f"{path} line {line}: it has {len(cells)} cells, line 1 has {len(columns)}: write a cell in quotes that has "
        f'the separator in it, such as "A, B"{comment_hint(columns)}'
    )


def _numbers(first: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(number) for number in range(1, len(first) + 1))


def _split_lines(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line that is not empty, and its cells."""
    first = next((line for line in file if line.strip()), "")
    stated = re.fullmatch(r'"?sep=(.)"?', first.strip("\r\n"))  # Excel's own line
    separator = stated[1] if stated else _separator(first)
    file.seek(0)
    if separator is None:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.strip().rsplit(None, 1)
        return
    reader = csv.reader(file, delimiter=separator, skipinitialspace=separator != " ")
    for row in reader:
        if row and not (stated and reader.line_num == 1):
            yield reader.line_num, [cell.strip() for cell in row]


def _separator(first: str) -> str | None:
    """Return the separator that splits a line into the most cells; None: white space before the last word."""
    counts = {separator: len(next(csv.reader([first], delimiter=separator), [])) for separator in SEPARATORS}
    best = max(counts, key=lambda separator: counts[separator])
    return best if counts[best] > 1 or len(first.split()) < 2 else None
