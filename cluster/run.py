"""A whole run, stage by stage: images, synthesiser, pool, episodes, figures, report.

Each stage leaves its result in the run's folder and is passed over where that is there, so that `resume` is
the same walk again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from cluster import finish
from cluster.checks import check_settings
from rlcas import data as datasets
from rlcas import rundir, settings
from rlcas.config import RunConfig
from rlcas.console import say
from rlcas.rundir import RunFolder

Result = TypeVar("Result")


def run(config: RunConfig) -> Path:
    """Run both phases into a new folder and return it.

    Raises:
        UserError: a setting, a file or the folder is wrong; nothing is left behind then.
    """
    check_settings(config)
    data = datasets.load(config, progress=True)
    folder = rundir.create(config)
    datasets.prepare(data, folder.prepared)
    return _walk(folder)


def resume(path: Path) -> Path:
    """Go on with an interrupted run and return its folder; a finished one is only shown.

    Raises:
        UserError: the folder is not a run's.
    """
    settings.load(path)
    folder = RunFolder(path.absolute())
    if folder.metrics.exists():
        say(f"{path} is finished")
        finish.show(folder)
        return folder.path
    return _walk(folder)


def run_or_show(config: RunConfig) -> Path:
    """Run, or go on with a folder of the same settings, or show it where it is finished."""
    folder = rundir.default_out(config) if config.out is None else config.out
    if (folder / settings.CONFIG_FILE).exists():
        return resume(folder)
    return run(config)
