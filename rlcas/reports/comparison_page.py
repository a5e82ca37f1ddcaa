"""The report of a comparison, one self-contained file, and the tables and figures beside it."""

from __future__ import annotations

import re
from pathlib import Path

from markupsafe import Markup, escape

from rlcas.comparison.findings import sentences
from rlcas.comparison.folder import read_comparison
from rlcas.comparison.grids import grids, status_text
from rlcas.comparison.summary import Results, summarise
from rlcas.comparison.table import write_texts
from rlcas.evaluation.bootstrap import RESAMPLES
from rlcas.metrics import absence_note
from rlcas.reports import FIGURES_FOLDER, REPORT_FILE, render
from rlcas.reports.canvas import drawing, save
from rlcas.reports.comparison_figures import drawable
from rlcas.storage.atomic import write_text


def write_tables(path: Path) -> Results:
    """Write compare.md, compare.csv, compare.json, figures and report.html from the cells of a comparison's folder.

    It can be called at any time; cells that have not run yet are shown as missing.

    Raises:
        UserError: `path` is not a comparison's folder, or a file in it is damaged.
    """
    results = summarise(read_comparison(path))
    write_texts(results)
    with drawing():
        charts = {
            name: save(draw(results), path / FIGURES_FOLDER / f"{name}.png")
            for name, draw in drawable(results).items()
        }
    page = render(
        "compare.html.jinja",
        results=results,
        comparison=results.comparison,
        charts=charts,
        grids=grids(results),
        findings=sentences(results),
        absence_note=absence_note("test image", results.comparison.absent_classes),
        bold=bold,
        status_text=status_text,
        resamples=RESAMPLES,
        folder_name=path.absolute().name,
    )
    write_text(path / REPORT_FILE, page)
    return results


def bold(cell: str) -> Markup:
    """Return a table cell as HTML: **bold** parts in bold, everything else escaped."""
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", str(escape(cell))))
