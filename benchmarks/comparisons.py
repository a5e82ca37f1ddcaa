"""The record of real comparisons: their cells in `docs/compare.json`, their tables in `docs/compare.md`.

    python benchmarks/comparisons.py OUT [OUT ...]

reads folders that `rlcas compare` has finished. What is there of other data sets stays; nothing is typed by hand.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlcas.comparison.cell import Cell
from rlcas.comparison.folder import MADE_FILE, read_comparison
from rlcas.comparison.summary import Results, summarise
from rlcas.comparison.table import grid_markdown, grids, trained_with
from rlcas.comparison.verdict import sentences
from rlcas.files import jsonable, read_facts, write_text

DOCS = Path(__file__).parent.parent / "docs"
FACTS = (
    "method", "seed", "equal_compute", "epochs", "best_epoch", "steps", "images", "passes", "seconds", "device", "pool",
)  # fmt: skip
"""What is kept of a finished cell beside its data set, its own settings, and its validation and test figures."""
LEFT_OUT_OF_TEST = ("intervals", "n")
DIGITS = 6


def main() -> None:
    """Write the record of the comparisons that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparisons", type=Path, nargs="+", metavar="OUT", help="folders of `rlcas compare`")
    for path in parser.parse_args().comparisons:
        record(summarise(read_comparison(path)))


def record(results: Results) -> None:
    """Put one comparison in place of what there is of its data set."""
    json_file, page = DOCS / "compare.json", DOCS / "compare.md"
    known = json.loads(json_file.read_text()) if json_file.exists() else {}
    name = results.comparison.name
    write_text(json_file, as_lines({**known, name: facts_of(results)}))
    write_text(page, with_tables(page.read_text(), name, tables(results)))


def facts_of(results: Results) -> dict[str, Any]:
    """Return what is kept of a comparison."""
    comparison = results.comparison
    return {
        **read_facts(comparison.path / MADE_FILE),
        "class_names": comparison.class_names,
        "train_counts": comparison.train_counts_C.tolist(),
        "test_counts": comparison.test_counts_C.tolist(),
        "shots": asdict(comparison.shots),
        "findings": sentences(results),
        "cells": [facts_of_cell(cell) for cell in comparison.cells if cell.status == "finished"],
    }


def facts_of_cell(cell: Cell) -> dict[str, Any]:
    """Return what is kept of a cell."""
    facts = {"dataset": cell.dataset, **{name: getattr(cell, name) for name in FACTS}}
    test = {name: value for name, value in cell.test.items() if name not in LEFT_OUT_OF_TEST}
    return {**facts, "settings": cell.settings, "validation_f1": cell.validation["f1"], "test": test}


def tables(results: Results) -> str:
    """Return the tables of a comparison as a section of the page, with what the cells ran on."""
    made = read_facts(results.comparison.path / MADE_FILE)
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    parts = [" ".join(sentences(results)), f"{trained_with(results)} {made['date']}; {versions}."]
    for grid in grids(results):
        parts += [f"#### {grid.title}", grid_markdown(grid)]
    return "\n\n".join(parts)


def with_tables(page: str, name: str, section: str) -> str:
    """Return the page with a comparison's section between its marks, which the page must have."""
    start, end = f"<!-- tables of {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(
            f"docs/compare.md has no place for the tables: write {start} and {end} where they belong"
        )
    return f"{before}{start}\n\n{section}\n\n{end}{after}"


def as_lines(record: dict[str, Any]) -> str:
    """Return the record as JSON with a line a cell, so that a change shows as what it is."""
    parts = []
    for name, of in sorted(record.items()):
        of = json.loads(json.dumps(jsonable(of)), parse_float=lambda text: round(float(text), DIGITS))
        cells = ",\n   ".join(json.dumps(cell) for cell in of.pop("cells"))
        head = ",\n  ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in of.items())
        parts.append(f' {json.dumps(name)}: {{\n  {head},\n  "cells": [\n   {cells}\n  ]\n }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
