"""`csv:PATH`: a table with a line for each image; its columns are named by settings or recognised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rlcas.config import DatasetConfig
from rlcas.data.classes import in_order
from rlcas.data.columns import BINARY, Columns, columns_of
from rlcas.data.files import dicom_note, files_split
from rlcas.data.groups import named_patients, own_groups, patients_note, repeating_note
from rlcas.data.image_paths import image_finder
from rlcas.data.join import join_note, joined
from rlcas.data.masks import masks_below
from rlcas.data.rows import Rows, read_rows
from rlcas.data.source import RawSplit, Source, SplitName, counted
from rlcas.data.split_column import split_in, unused_notes, words_note
from rlcas.data.split_files import SPLIT_ORDER, split_files
from rlcas.errors import UserError


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the table."""

    path: Path
    label: str
    patient: str | None
    split: SplitName


@dataclass(frozen=True, slots=True)
class Table:
    """A file that was read."""

    rows: Rows
    columns: Columns
    entries: Sequence[Entry | None]
    """[N] lines; None: without a label, and left out."""


def open_csv(path: Path, dataset: DatasetConfig) -> Source:
    """Return the images listed in a CSV file, or in a file for each split.

    Raises:
        UserError: a column is missing or may be several, or a line has an empty cell, an unknown split or a missing
            image file; the message names the line.
    """
    files, file_notes = split_files(path, dataset)
    tables = [_read(file, name, dataset) for name, file in files.items()]
    # In the order of their paths, so that the order of the lines changes neither a cut nor the training.
    entries = sorted(
        (entry for table in tables for entry in table.entries if entry is not None),
        key=lambda entry: entry.path.as_posix(),
    )
    if not entries:
        raise UserError(f"{path} lists no images: write a line for each")
    class_names = in_order(entry.label for entry in entries)
    splits = {
        name: _open_split(path, part, class_names, dataset)
        for name in SPLIT_ORDER
        if (part := [entry for entry in entries if entry.split == name])
    }
    notes = [note for table in tables for note in _table_notes(table, dataset, list(files.values()))]
    return Source(
        name=path.stem,
        where=str(path),
        splits=splits,
        class_names=class_names,
        notes=(
            *file_notes,
            *dict.fromkeys(notes),
            *_mask_note([name for split in splits.values() for name in split.names]),
            *patients_note(splits),
            *dicom_note([entry.path for entry in entries], dataset),
        ),
    )


def _read(path: Path, split: SplitName, dataset: DatasetConfig) -> Table:
    rows = read_rows(path)
    if rows.has_header and any(
        name.isdecimal() and name not in rows.columns for name in dataset.columns.values()
    ):
        rows = read_rows(path, has_header=False)
    rows = joined(rows, dataset)
    columns = columns_of(rows, dataset)
    image_of = image_finder(rows, columns, dataset.images)

    def entry(line: int, cells: Sequence[str]) -> Entry | None:
        where = f"{rows.path} line {line}"
        label = _label(where, rows, columns, cells)
        if not label:
            if dataset.unlabelled == "leave_out":
                return None
            raise UserError(
                f"{where}: {_no_label(rows, columns)}, or leave such lines out with --dataset.unlabelled leave_out"
            )
        return Entry(
            path=image_of(where, cells),
            label=label,
            patient=None if columns.patient is None else cells[columns.patient],
            split=split if columns.split is None else split_in(where, cells[columns.split]),
        )

    return Table(
        rows, columns, [entry(line, cells) for line, cells in zip(rows.lines, rows.cells, strict=True)]
    )


def _no_label(rows: Rows, columns: Columns) -> str:
    if len(columns.labels) == 1:
        return "label is empty: fill it in"
    return f"none of {', '.join(rows.columns[i] for i in columns.labels)} is 1: correct it"


def _label(where: str, rows: Rows, columns: Columns, cells: Sequence[str]) -> str:
    """Return the class of a line; empty if it has none."""
    if len(columns.labels) == 1:
        return cells[columns.labels[0]]
    ones = []
    for place in columns.labels:
        if cells[place] not in BINARY:
            raise UserError(
                f"{where}: {rows.columns[place]} is {cells[place]!r}, and not 0 or 1: correct it, or name other "
                "columns with --dataset.columns label=A+B+C"
            )
        if BINARY[cells[place]]:
            ones.append(rows.columns[place])
    if len(ones) > 1:
        raise UserError(
            f"{where}: {' and '.join(ones)} are 1: multi-label data are not supported, keep one label for each image"
        )
    return ones[0] if ones else ""


def _open_split(
    table: Path, entries: Sequence[Entry], class_names: Sequence[str], dataset: DatasetConfig
) -> RawSplit:
    id_of = {name: class_id for class_id, name in enumerate(class_names)}
    labels_N = np.array([id_of[entry.label] for entry in entries], np.int64)
    split = files_split(table.parent, [entry.path for entry in entries], labels_N, dataset)
    ids = [entry.patient for entry in entries if entry.patient is not None]
    if dataset.patient_pattern is not None or len(ids) < len(entries):
        return named_patients(split, dataset)
    return replace(split, patients_N=own_groups(ids, split.names))


def _table_notes(table: Table, dataset: DatasetConfig, files: Sequence[Path]) -> Iterator[str]:
    rows, columns = table.rows, table.columns
    if mapping := columns.described(rows.columns):
        by_name = " (recognised; --dataset.columns names others)" if columns.recognised else ""
        yield f"columns: {mapping}{by_name}"
    labelled = [
        (cells, entry) for cells, entry in zip(rows.cells, table.entries, strict=True) if entry is not None
    ]
    if len(labelled) < len(rows.cells):
        yield f"lines left out, because they have no label: {len(rows.cells) - len(labelled)}"
    found = {entry.label for _, entry in labelled}
    if len(columns.labels) > 1 and (
        empty := [rows.columns[i] for i in columns.labels if rows.columns[i] not in found]
    ):
        yield f"columns without an image, which are no classes: {', '.join(empty)}"
    unused = set(range(len(rows.columns))) - {columns.path, columns.patient, columns.split, *columns.labels}
    if columns.split is not None:
        yield from words_note([cells[columns.split] for cells, _ in labelled])
    elif "split" not in dataset.columns and any(entry.split == "all" for _, entry in labelled):
        yield from unused_notes(rows, unused)
    if columns.patient is not None or dataset.patient_pattern is not None:
        return
    id_of = {label: class_id for class_id, label in enumerate(found)}
    labels_N = np.array([id_of[entry.label] for _, entry in labelled], np.int64)
    for place in sorted(unused):
        yield from repeating_note(rows.columns[place], [cells[place] for cells, _ in labelled], labels_N)
    yield from join_note(rows, columns, files)


def _mask_note(names: Sequence[str]) -> tuple[str, ...]:
    masks = sorted(masks_below(names))
    if not masks:
        return ()
    return (f"lines that seem to list masks of other lines' pictures, and are kept: {counted(masks)}",)
