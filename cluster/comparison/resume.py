"""Resuming whatever a folder holds: a run or a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.comparison import compare
from cluster.runs import run
from rlcas import settings


def resume(folder: str | Path, given: Mapping[str, Any] | None = None) -> Path:
    """Resume an interrupted run or comparison and return its folder; a finished one is only shown.

    Args:
        folder: of `rlcas run`, `rlcas train`, `rlcas synth train` or `rlcas compare`; a run's may be an address.
        given: `sampler.epochs`, to train a run for more epochs than its own; of a comparison, weights that were
            missing. Dotted as on the command line.

    Raises:
        UserError: it is neither, a setting cannot change, or Ray cannot start for what is not finished.
    """
    if (Path(folder) / settings.COMPARE_CONFIG_FILE).is_file():
        return compare.resume(Path(folder), given)
    return run.resume(folder, given)
