"""`csv:PATH`: a table with the columns path and label, and optionally patient_id and split."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rlcas.config import DatasetConfig
from rlcas.data.folder import dicom_note, files_split
from rlcas.data.source import SPLIT_ALIASES, RawSplit, Source, SplitName
from rlcas.errors import UserError

REQUIRED = ("path", "label")
OPTIONAL = ("patient_id", "split")
MAX_DIGITS = 4000
"""Digits of a label that is sorted as a number: Python converts at most 4300."""
SPLIT_ORDER: tuple[SplitName, ...] = ("train", "val", "test", "all")


@dataclass(frozen=True, slots=True)
class TableEntry:
    """A line of the table."""

    path: Path
    label: str
    patient_id: str | None
    split: SplitName


def open_csv(path: Path, dataset: DatasetConfig) -> Source:
    """Return the images listed in a CSV file; paths are relative to it.

    Raises:
        UserError: a column is missing, or a line has an empty cell, an unknown split or a missing image file;
            the message names the line.
    """
    rows = _rows(path)
    if not rows:
        raise UserError(f"{path} lists no images: write a line for each")
    class_names = _sorted_labels(rows)
    splits = {
        name: _open_split(path, part, class_names, dataset)
        for name in SPLIT_ORDER
        if (part := [row for row in rows if row.split == name])
    }
    return Source(
        name=path.stem,
        where=str(path),
        splits=splits,
        class_names=class_names,
        notes=dicom_note([row.path for row in rows], dataset),
    )


def _rows(path: Path) -> list[TableEntry]:
    if not path.is_file():
        raise UserError(f"{path} is not a file: check the path after csv:")
    try:
        # utf-8-sig also reads files that begin with a byte-order mark, as Excel's do.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [column.strip() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            for column in REQUIRED:
                if column not in columns:
                    raise UserError(f"{path} line 1: no column {column} among {', '.join(columns)}: add it")
            return [_row(path, reader.line_num, cells) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not CSV in UTF-8 ({error}): save it as such") from error


def _row(table: Path, line: int, cells: dict[str, str | None]) -> TableEntry:
    where = f"{table} line {line}"
    # csv gives None for the cells that a short line lacks.
    values = {column: (cells[column] or "").strip() for column in (*REQUIRED, *OPTIONAL) if column in cells}
    for column in ("path", "label", "patient_id"):
        if values.get(column) == "":
            raise UserError(f"{where}: {column} is empty: fill it in")
    image = table.parent / values["path"]
    if not os.path.isfile(image):  # noqa: PTH113  # pathlib's raises if the name is too long for the disk
        raise UserError(f"{where}: no image file {image}: correct the path (it is relative to the table)")
    return TableEntry(image, values["label"], values.get("patient_id"), _split(where, values.get("split")))


def _split(where: str, value: str | None) -> SplitName:
    # A file without the column has no splits, and is cut by the settings.
    if value is None:
        return "all"
    if value.lower() not in SPLIT_ALIASES:
        raise UserError(f"{where}: split {value!r} is unknown: use train, val or test")
    return SPLIT_ALIASES[value.lower()]


def _sorted_labels(rows: Sequence[TableEntry]) -> tuple[str, ...]:
    labels = {row.label for row in rows}
    numbers = all(label.isdecimal() and len(label) <= MAX_DIGITS for label in labels)
    return tuple(sorted(labels, key=int if numbers else str))


def _open_split(
    table: Path, rows: Sequence[TableEntry], class_names: Sequence[str], dataset: DatasetConfig
) -> RawSplit:
    labels_N = np.array([class_names.index(row.label) for row in rows], np.int64)
    split = files_split(table.parent, [row.path for row in rows], labels_N, dataset)
    if rows[0].patient_id is None:
        return split
    return replace(split, patients_N=np.array([row.patient_id for row in rows], np.str_))
