"""The tables of a comparison: Markdown, CSV and JSON in its folder, and one for the console."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from rlcas.comparison.cell import Cell, cell_facts
from rlcas.comparison.findings import sentences
from rlcas.comparison.folder import MADE_FILE
from rlcas.comparison.grids import (
    DASH,
    TABLE_1,
    Grid,
    difference_texts,
    figure_text,
    grids,
    name_of,
    status_text,
)
from rlcas.comparison.summary import OURS, Results
from rlcas.console import format_seconds
from rlcas.jsonable import jsonable
from rlcas.metrics import absence_note
from rlcas.storage.atomic import read_facts, replacing, write_json, write_text

MARKDOWN_FILE = "compare.md"
CSV_FILE = "compare.csv"
JSON_FILE = "compare.json"
FACTS_OF_CELL = (
    "dataset", "method", "seed", "equal_compute", "status", "reason", "epochs", "best_epoch", "steps", "images",
    "passes", "seconds", "device", "pool",
)  # fmt: skip


def markdown(results: Results) -> str:
    """Return compare.md: what was found, by rule, then the tables."""
    parts = [f"# Comparison on {results.comparison.name}", " ".join(sentences(results)), trained_with(results)]
    for grid in grids(results):
        parts += [f"## {grid.title}", grid_markdown(grid), grid.note]
    return "\n\n".join(parts) + "\n"


def trained_with(results: Results) -> str:
    """Return what all rows share, in a sentence."""
    comparison = results.comparison
    note = absence_note("test image", comparison.absent_classes)
    return (
        f"{len(comparison.class_names)} classes, {comparison.train_counts_C.sum()} training and "
        f"{len(comparison.labels_N)} test images; {comparison.config.classifier.backbone}, {len(comparison.seeds)} "
        f"seeds, a budget of {comparison.config.compare.epochs} passes over the real training images."
        + (f" {note[0].upper()}{note[1:]}." if note else "")
    )


def grid_markdown(grid: Grid) -> str:
    """Return a table in Markdown."""

    def line(cells: Sequence[str]) -> str:
        # A reason may quote anything, and a bar would begin a new cell.
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = ["---", *["---:"] * (len(grid.head) - 1)]
    return "\n".join([line(grid.head), line(rule), *map(line, grid.rows)])


def facts_of(results: Results) -> dict[str, Any]:
    """Return compare.json: the data, what was found, a summary a row, and all cells."""
    comparison = results.comparison
    return {
        "dataset": comparison.name,
        "class_names": comparison.class_names,
        "train_counts": comparison.train_counts_C,
        "test_counts": comparison.test_counts_C,
        "absent_classes": comparison.absent_classes,
        "shots": asdict(comparison.shots),
        "seeds": list(comparison.seeds),
        "settings": comparison.config.model_dump(mode="json"),
        **read_facts(comparison.path / MADE_FILE),
        "findings": sentences(results),
        "distinctly_best": dict(results.best),
        "rows": [asdict(row) for row in results.rows],
        "contrasts": [
            asdict(pair) | {name: asdict(found) for name, found in of.items()}
            for pair, of in results.contrasts.items()
        ],
        "pools": comparison.pools,
        "pool_seconds": comparison.pool_seconds,
        "cells": [cell_facts(cell) for cell in comparison.cells],
    }


def write_csv(path: Path, cells: Iterable[Cell]) -> None:
    """Write a line a cell: what it is, what it cost, and its test figures; empty where there is none."""
    names = (*TABLE_1, "ece")
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*FACTS_OF_CELL, *names])
        for cell in cells:
            figures = jsonable({name: cell.test.get(name) for name in names})
            writer.writerow([*(getattr(cell, name) for name in FACTS_OF_CELL), *figures.values()])


def write_texts(results: Results) -> None:
    """Write compare.md, compare.csv and compare.json into the comparison's folder."""
    path = results.comparison.path
    write_text(path / MARKDOWN_FILE, markdown(results))
    write_csv(path / CSV_FILE, results.comparison.cells)
    write_json(path / JSON_FILE, facts_of(results))


def summary_table(results: Results) -> Table:
    """Return a row a method for the console: the leading figures, differences, rank, time."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    columns = (
        "method",
        "F1",
        "recall",
        "few",
        "AUC",
        "AP",
        "F1 − Baseline [95 %]",
        "AP − Baseline [95 %]",
        f"F1 − {OURS} [95 %]",
        "rank",
        "time",
    )
    for name in columns:
        table.add_column(Text(name), justify="left" if name == "method" else "right")
    for row in results.rows:
        names = ("f1", "recall", "few", "auc", "average_precision")
        figures = [figure_text(row.figures[name]) if row.figures else DASH for name in names]
        texts = (text.strip("*") for text in difference_texts(results, row))
        against_f1, against_ap, _, ours, rank, *_ = texts
        time = format_seconds(row.cost["seconds"]) if row.figures else DASH
        # Text, as rich would read square brackets in a plain string as markup.
        table.add_row(*map(Text, [name_of(results, row), *figures, against_f1, against_ap, ours, rank, time]))
    return table


def summary_notes(results: Results) -> list[str]:
    """Return the lines under the console's table: why rows have no figures, and what was found."""
    note = absence_note("test image", results.comparison.absent_classes)
    return [
        *([f"note: {note}"] if note else []),
        *(f"{row.method}: {status_text(row)}" for row in results.rows if not row.figures),
        *sentences(results),
    ]
