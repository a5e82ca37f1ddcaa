"""The report of a run: one page that stands alone, and its figures, from the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from rlcas import files
from rlcas.report import facts
from rlcas.report.figures import Plots
from rlcas.report.run_folder import RunFolder, read_run

CLASSES_SPELT_OUT = 12


def write_report(run_folder: Path) -> Path:
    """Rebuild `report.html` and `figures/*.png` from what `run_folder` holds; return the page's path.

    Raises:
        UserError: the folder holds nothing of a run.
    """
    run = read_run(run_folder)
    page = run_folder / "report.html"
    files.write_text(page, _render(run, _plots(run, Plots(run_folder / "figures"))))
    return page


def _plots(run: RunFolder, plots: Plots) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    if run.epochs:
        drawn = {"rewards": plots.rewards(run.epochs), "metrics": plots.metrics(run.epochs)}
        drawn["classes"] = {c: plots.class_panel(run.epochs, c) for c in _classes_shown(run)}
        if len(run.class_names) > CLASSES_SPELT_OUT:
            drawn |= _heat_maps(run, plots)
    if len(run.class_names) > CLASSES_SPELT_OUT and run.metrics.get("test", {}).get("confusion"):
        shares_CC = np.array([[share for _, share in row] for row in facts.confusion_rows(run)])
        labels = ("predicted class", "true class", "share of the true class")
        drawn["confusion"] = plots.heat_map("confusion", shares_CC, labels, "cividis", (0, 1))
    drawn["synthesis"] = plots.synthesis(run.synthesis_log)
    return drawn


def _classes_shown(run: RunFolder) -> list[int]:
    """Return all classes, or of many those whose count ended highest and lowest."""
    last = run.epochs[-1]
    classes = sorted(range(len(run.class_names)), key=lambda c: -last["compositions"][last["winner"]][c])
    if len(classes) <= CLASSES_SPELT_OUT:
        return sorted(classes)
    return classes[:3] + classes[-3:]


def _heat_maps(run: RunFolder, plots: Plots) -> dict[str, str]:
    counts_CT = np.array([epoch["compositions"][epoch["winner"]] for epoch in run.epochs]).T
    p_CT3 = np.array([epoch["probabilities"] for epoch in run.epochs]).transpose(1, 0, 2)
    lean_CT = p_CT3[:, :, 2] - p_CT3[:, :, 0]
    return {
        "composition_map": plots.heat_map(
            "composition", counts_CT, ("epoch", "class", "synthetic images"), "cividis", (0, counts_CT.max())
        ),
        "policy_map": plots.heat_map(
            "policy", lean_CT, ("epoch", "class", "p(more) - p(less)"), "PuOr", (-1, 1)
        ),
    }


def _render(run: RunFolder, plots: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("rlcas", "report"), autoescape=True, trim_blocks=True)
    environment.filters["svg"] = Markup
    heads, rows = facts.figure_table(run)
    return environment.get_template("page.html.jinja").render(
        run=run,
        plots=plots,
        facts=facts,
        figure_heads=heads,
        figure_rows=rows,
        many_classes=len(run.class_names) > CLASSES_SPELT_OUT,
    )
