"""The comparisons in the docs: their tables say what the cells beside them say."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from rlcas.methods import METHODS

DOCS = Path(__file__).parent.parent / "docs"
RECORDS: dict[str, Any] = {
    page: json.loads((DOCS / f"{page}.json").read_text()) for page in ("compare", "shares")
}
RECORD = RECORDS["compare"]
COMPARISONS = [(page, name) for page, record in RECORDS.items() for name in record]
COLUMNS = {
    "All": "acc",
    "Many": "many",
    "Medium": "medium",
    "Few": "few",
    "F1": "f1",
    "Recall": "recall",
    "AUC": "auc",
}
FIELDS = {"dataset", "method", "seed", "epochs", "images", "seconds", "device", "test"}


def table_1(name: str, page: str = "compare") -> dict[str, dict[str, str]]:
    """Return method -> column -> text of a comparison's first table in docs/results/PAGE.md."""
    text = (DOCS / "results" / f"{page}.md").read_text()
    section = text.split(f"<!-- tables of {name} -->")[1].split("<!-- end -->")[0]
    lines = section.split("### Table 1")[1].split("###")[0].splitlines()
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    head, _, *body = rows
    return {row[0].partition(" ")[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}


NOT_YET = {
    "baseline_ema",
    "baseline_ensemble",
    "rlcas_dose",
    "rlcas_dose_frozen",
    "rlcas_dose_permuted",
    "rlcas_dose_replayed",
    "syn_image",
}
"""Rows that are newer than the record."""


@pytest.mark.parametrize(("page", "name"), COMPARISONS)
def test_the_table_has_the_mean_and_deviation_of_the_cells(page: str, name: str) -> None:
    shown, record = table_1(name, page), RECORDS[page][name]["cells"]
    for method in {cell["method"] for cell in record}:
        # A row of equal compute alone has its figures in the same place.
        budgets = [not c["equal_compute"] for c in record if c["method"] == method]
        cells = [c for c in record if c["method"] == method and c["equal_compute"] != any(budgets)]
        for column, figure in COLUMNS.items():
            values = [cell["test"][figure] for cell in cells]
            if values[0] is None:
                assert shown[method][column] == "n/a"
                continue
            mean, deviation = map(float, re.split(" ± ", shown[method][column]))
            assert mean == pytest.approx(statistics.mean(values), abs=0.00051), (method, column)
            assert deviation == pytest.approx(statistics.stdev(values), abs=0.00051), (method, column)


@pytest.mark.parametrize("name", RECORD)
def test_every_row_that_needs_no_foundation_weights_has_three_seeds(name: str) -> None:
    assert all(cell.keys() >= FIELDS and cell["dataset"] == name for cell in RECORD[name]["cells"])
    seeds: dict[str, set[int]] = {}
    for cell in RECORD[name]["cells"]:
        if not cell["equal_compute"]:
            seeds.setdefault(cell["method"], set()).add(cell["seed"])
    assert seeds.keys() | NOT_YET == {row for row, method in METHODS.items() if method.needs is None}
    assert min(map(len, seeds.values())) >= 3
    assert RECORD[name]["date"] and RECORD[name]["versions"]


def test_the_readme_has_the_figures_of_the_record() -> None:
    rows = {
        "cross-entropy": "ce",
        "Baseline (Balanced Softmax)": "baseline",
        "NCL": "ncl",
        "synthetic images in fixed counts": "syn_sketch",
        "RL-CAS": "rlcas",
        "the best of K Baselines": "baseline_best_of_k",
    }
    readme = (DOCS.parent / "README.md").read_text()
    for label, method in rows.items():
        figures = [table_1(name)[method]["F1"] for name in ("breastmnist", "bloodlt8")]
        assert f"| {label} | {' | '.join(figures)} |" in readme
