"""A second table whose columns are added to the first one's lines, as lesion ids in a file of metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rlcas.config import DatasetConfig
from rlcas.data.columns import Columns, candidates, path_place, place_of
from rlcas.data.files import visible
from rlcas.data.rows import Rows, read_rows
from rlcas.data.suggest import TABLE_SUFFIXES
from rlcas.errors import UserError

MOST_TABLES = 20
"""Tables beside the first that are looked at for a note."""


def joined(rows: Rows, dataset: DatasetConfig) -> Rows:
    """Return the rows with the columns of `dataset.join` that they lack; cells without a line there are empty.

    Raises:
        UserError: the second table is none, has no column named as the first one's path column, has two lines of one
            image, or none of any.
    """
    if dataset.join is None:
        return rows
    place = path_place(rows, dataset)
    if place is None:
        raise UserError(
            f"dataset.join {dataset.join} needs a column that both tables have: name it with "
            "--dataset.columns path=COLUMN"
        )
    table = rows.path.parent / Path(dataset.join).expanduser()
    if not table.is_file():
        raise UserError(
            f"dataset.join {dataset.join}: {table} is not a file: correct it (it is relative to the first table)"
        )
    second = read_rows(table)
    key = place_of(second, rows.columns[place], "dataset.join by column")
    added = [i for i, name in enumerate(second.columns) if name not in rows.columns and i != key]
    found: dict[str, list[str]] = {}
    for line, cells in zip(second.lines, second.cells, strict=True):
        values = [cells[i] for i in added]
        if found.setdefault(cells[key], values) != values:
            raise UserError(
                f"{second.path} line {line}: {second.columns[key]} {cells[key]} has another line with other cells: "
                "keep one"
            )
    if rows.cells and not any(cells[place] in found for cells in rows.cells):
        raise UserError(
            f"dataset.join {dataset.join} has no line of any image of {rows.path}: its {second.columns[key]} is "
            f"{second.cells[0][key] if second.cells else 'empty'}, and not {rows.cells[0][place]}"
        )
    empty = [""] * len(added)
    return replace(
        rows,
        columns=(*rows.columns, *(second.columns[i] for i in added)),
        cells=[[*cells, *found.get(cells[place], empty)] for cells in rows.cells],
    )


def join_note(rows: Rows, columns: Columns, others: Sequence[Path]) -> tuple[str, ...]:
    """Return a note if a table beside the first one names patients of the same images.

    Args:
        rows: the first table.
        columns: its columns.
        others: tables that are read already.
    """
    if columns.path is None or not rows.has_header:
        return ()
    tables = [path for path in visible(rows.path.parent) if path.suffix.lower() in TABLE_SUFFIXES]
    for path in [path for path in tables if path not in (rows.path, *others)][:MOST_TABLES]:
        try:
            second = read_rows(path, limit=1)
        except UserError:
            continue
        patient = candidates(second)["patient"]
        if patient and rows.columns[columns.path] in second.columns:
            name = second.columns[patient[0]]
            return (
                f"{path.name} beside the table has {name} of the images, which is not used: --dataset.join {path.name} "
                "keeps the images of one in one split",
            )
    return ()
