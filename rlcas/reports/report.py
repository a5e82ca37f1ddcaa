"""The report of whatever a folder holds: a run, a sweep or a comparison."""

from __future__ import annotations

from pathlib import Path

from rlcas import settings
from rlcas.reports import REPORT_FILE, write_report
from rlcas.runs.sweep_folder import SWEEP_FILE


def report(folder: str | Path) -> Path:
    """Write the report of a run, a sweep or a comparison, finished or not, and return the page's path.

    Args:
        folder: of `rlcas run`, `rlcas sweep` or `rlcas compare`.

    Raises:
        UserError: it is none of these, or a file in it is damaged.
    """
    folder = Path(folder)
    if (folder / settings.COMPARE_CONFIG_FILE).is_file():
        from rlcas.reports.comparison_page import write_tables  # the methods need torch, which takes seconds

        write_tables(folder)
        return folder / REPORT_FILE
    if (folder / SWEEP_FILE).exists():
        from rlcas.reports.sweep_page import write_sweep_report

        return write_sweep_report(folder)
    return write_report(folder)
