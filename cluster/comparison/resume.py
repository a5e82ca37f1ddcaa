"""Resuming whatever a folder holds: a run or a comparison."""

from __future__ import annotations

from pathlib import Path

from cluster.comparison import compare
from cluster.runs import run
from rlcas import settings


def resume(folder: str | Path) -> Path:
    """Resume an interrupted run or comparison and return its folder; a finished one is only shown.

    Args:
        folder: of `rlcas run`, `rlcas train`, `rlcas synth train` or `rlcas compare`; a run's may be an address.

    Raises:
        UserError: it is neither, or Ray cannot start for what is not finished.
    """
    if (Path(folder) / settings.COMPARE_CONFIG_FILE).is_file():
        return compare.resume(Path(folder))
    return run.resume(folder)
