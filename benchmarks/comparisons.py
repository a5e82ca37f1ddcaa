"""Record comparisons in the docs: cells in `docs/NAME.json`, tables in `docs/results/NAME.md`.

    python benchmarks/comparisons.py OUT OUT ...                  # NAME compare, contrasts in docs/findings.md too
    python benchmarks/comparisons.py --name shares OUT OUT ...

reads folders of finished `rlcas compare`, one for each data set; nothing in the record is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rlcas.comparison.cell import Cell
from rlcas.comparison.contrasts import Contrast
from rlcas.comparison.findings import interval_text, sentences
from rlcas.comparison.folder import MADE_FILE, read_comparison
from rlcas.comparison.grids import Grid, grids
from rlcas.comparison.intervals import Interval, mean_draws
from rlcas.comparison.summary import Results, summarise
from rlcas.comparison.table import grid_markdown, trained_with
from rlcas.evaluation.bootstrap import LEVEL, SEED
from rlcas.jsonable import jsonable
from rlcas.seeding import rng_for
from rlcas.storage.atomic import read_facts, write_text
from rlcas.types import Float64

MAIN = "compare"
DOCS = Path(__file__).parent.parent / "docs"
FACTS = (
    "method", "seed", "equal_compute", "epochs", "best_epoch", "steps", "images", "passes", "seconds", "device", "pool",
)  # fmt: skip
"""Recorded of a finished cell, in addition to its data set, its own settings, and its validation and test figures."""
LEFT_OUT_OF_TEST = ("intervals", "n")
DIGITS = 6
WIDTH = 120


def main() -> None:
    """Write the record of the comparisons named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparisons", type=Path, nargs="+", metavar="OUT", help="folders of `rlcas compare`")
    parser.add_argument("--name", default=MAIN, help="the record's and its page's")
    options = parser.parse_args()
    all_results = [summarise(read_comparison(path)) for path in options.comparisons]
    record = {of.comparison.name: facts_of(of) for of in all_results}
    write_text(DOCS / f"{options.name}.json", as_lines(record))
    for results in all_results:
        put(DOCS / "results" / f"{options.name}.md", f"tables of {results.comparison.name}", tables(results))
    if options.name == MAIN:
        put(DOCS / "findings.md", "contrasts", grid_markdown(contrasts_of(all_results)))


def facts_of(results: Results) -> dict[str, Any]:
    """Return the record of a comparison."""
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
    """Return the record of a cell."""
    facts = {"dataset": cell.dataset, **{name: getattr(cell, name) for name in FACTS}}
    test = {name: value for name, value in cell.test.items() if name not in LEFT_OUT_OF_TEST}
    return {**facts, "settings": cell.settings, "validation_f1": cell.validation["f1"], "test": test}


def tables(results: Results) -> str:
    """Return the tables of a comparison as a section of the page, with hardware, date and versions."""
    made = read_facts(results.comparison.path / MADE_FILE)
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    texts = [" ".join(sentences(results)), f"{trained_with(results)} {made['date']}; {versions}."]
    parts = [textwrap.fill(text, WIDTH, break_on_hyphens=False) for text in texts]
    for grid in grids(results):
        parts += [f"### {grid.title}", grid_markdown(grid)]
    return "\n\n".join(parts)


def contrasts_of(all_results: Sequence[Results]) -> Grid:
    """Return the table of the contrasts between methods, on each data set and on average over them."""
    pairs = list(dict.fromkeys(pair for results in all_results for pair in results.contrasts))
    rows = []
    for pair in pairs:
        found = [results.contrasts.get(pair, {}).get("f1") for results in all_results]
        shown = [shown_interval(of) if of else "–" for of in found]
        rows.append(
            (pair.part, f"{pair.row} − {pair.other}", *shown, shown_interval(average(pair, all_results)))
        )
    names = [results.comparison.name for results in all_results]
    return Grid("What drives the result", ("part", "rows", *names, "average"), tuple(rows), "")


def average(pair: Contrast, all_results: Sequence[Results]) -> Interval:
    """Return the mean over data sets of a difference in macro F1, whose images and seeds vary independently."""
    found = [
        mean_draws(
            differences(results.f1_draws[pair.row], results.f1_draws[pair.other]),
            rng_for(SEED, "average", results.comparison.name),
        )
        for results in all_results
        if pair in results.contrasts
    ]
    low, high = np.quantile(np.mean([of for _, of in found], axis=0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = float(np.mean([value for value, _ in found]))
    return Interval(
        value=value, low=float(low), high=float(high), num_seeds=len(all_results[0].comparison.seeds)
    )


def differences(row: Mapping[int, Float64], other: Mapping[int, Float64]) -> dict[int, Float64]:
    """Return seed -> [B + 1] differences, for the seeds of both."""
    return {seed: row[seed] - other[seed] for seed in row.keys() & other.keys()}


def shown_interval(found: Interval) -> str:
    """Return an interval as text, in bold if it excludes 0."""
    return f"**{interval_text(found)}**" if found.sign else interval_text(found)


def put(page: Path, name: str, section: str) -> None:
    """Replace the section between its marks in a page.

    Raises:
        SystemExit: the page lacks the marks.
    """
    start, end = f"<!-- {name} -->", "<!-- end -->"
    before, found, rest = page.read_text().partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{page} has no place for this: write {start} and {end} where it belongs")
    write_text(page, f"{before}{start}\n\n{section}\n\n{end}{after}")


def as_lines(record: dict[str, Any]) -> str:
    """Return the record as JSON with one line per cell, so that a diff shows the changed cells."""
    parts = []
    for name, of in record.items():
        of = json.loads(json.dumps(jsonable(of)), parse_float=lambda text: round(float(text), DIGITS))
        cells = ",\n   ".join(json.dumps(cell) for cell in of.pop("cells"))
        head = ",\n  ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in of.items())
        parts.append(f' {json.dumps(name)}: {{\n  {head},\n  "cells": [\n   {cells}\n  ]\n }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
