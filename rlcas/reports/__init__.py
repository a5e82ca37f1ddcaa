"""The report of a run: report.html and figures/*.png, from the run's folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlcas.console import format_distance, format_figure, format_seconds
from rlcas.reports.canvas import COLOURS, drawing, save
from rlcas.reports.facts import HARDLY_MOVED, RunFacts, read_run
from rlcas.reports.figures import MOST_PANELS, drawable
from rlcas.reports.gallery import galleries
from rlcas.storage.atomic import write_text

REPORT_FILE = "report.html"
FIGURES_FOLDER = "figures"
FIGURE_NAMES = {
    "f1": "Macro F1",
    "recall": "Macro recall",
    "precision": "Macro precision",
    "acc": "Accuracy",
    "auc": "Macro AUC",
    "average_precision": "Macro average precision",
    "log_loss": "Log-loss",
    "many": "Many-shot recall",
    "medium": "Medium-shot recall",
    "few": "Few-shot recall",
    "ece": "Calibration error (ECE)",
}


def write_report(run_folder: str | Path) -> Path:
    """Write `report.html` and `figures/*.png` of a run, finished or not, and return the page's path.

    The page is one file without scripts and external links; its figures are inline SVG.

    Raises:
        UserError: `run_folder` is not a run's folder.
    """
    run_folder = Path(run_folder)
    facts = read_run(run_folder)
    with drawing():
        charts = {
            name: save(draw(facts), run_folder / FIGURES_FOLDER / f"{name}.png")
            for name, draw in drawable(facts).items()
        }
    page = run_folder / REPORT_FILE
    write_text(page, _render(facts, charts, run_folder.absolute().name))
    return page


def render(template: str, **facts: Any) -> str:
    """Return a template of this package filled with `facts`; all values are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # class names, settings and tracebacks are not ours
        undefined=StrictUndefined,  # a name that is wrong in a template is an error, not an empty place
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=format_figure, distance=format_distance, duration=format_seconds)
    return environment.get_template(template).render(colours=COLOURS, **facts)


def _usefulness(pool: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the pool teaches beyond repeated real images, as text; None where it was not measured."""
    if not (useful := pool.get("usefulness")):
        return None
    # Only now: the statistics of comparisons need torch, which takes seconds.
    from rlcas.reports.score_table import USEFULNESS_COLUMNS, usefulness_note, usefulness_rows

    return {"note": usefulness_note(useful), "columns": USEFULNESS_COLUMNS, "rows": usefulness_rows(pool)}


def _render(facts: RunFacts, charts: dict[str, Any], folder_name: str) -> str:
    return render(
        "page.html.jinja",
        facts=facts,
        charts=charts,
        folder_name=folder_name,
        galleries=galleries(facts),
        figure_names=FIGURE_NAMES,
        hardly_moved=HARDLY_MOVED,
        heat_maps=len(facts.class_names) > MOST_PANELS,
        usefulness=_usefulness(facts.metrics.get("synthesis") or {}),
    )
