"""A whole run, stage by stage: images, synthesiser, pool, episodes, figures, report.

Each stage leaves its result in the run's folder and is passed over where that is there, so that `resume` is
the same walk again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cluster import finish, phase_one
from cluster.checks import check_settings
from rlcas import data as datasets
from rlcas import rundir, settings
from rlcas.config import RunConfig
from rlcas.console import say
from rlcas.data.prepared import DATA_FILE
from rlcas.devices import choose_device
from rlcas.evaluate import evaluate
from rlcas.rundir import RunFolder
from rlcas.types import TrainingData


def run(config: RunConfig) -> Path:
    """Run both phases into a new folder and return it.

    Raises:
        UserError: a setting, a file or the folder is wrong; nothing is left behind then.
    """
    folder = _open(config)
    _walk(folder)
    return folder.path


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
    else:
        _walk(folder)
    return folder.path


def run_or_show(config: RunConfig) -> Path:
    """Run; where the folder holds a run already, go on with it, or show it if it is finished."""
    out = config.out or rundir.default_out(config)
    return resume(out) if (out / settings.CONFIG_FILE).exists() else run(config)


def synthesise(config: RunConfig) -> Path:
    """Train the synthesiser alone into a new folder and return it; `sample` and `resume` go on from there."""
    folder = _open(config)
    resolved = settings.load(folder.path)
    data = datasets.open_prepared(folder.prepared)
    phase_one.train(folder, resolved, data, choose_device(resolved.device))
    return folder.path


def sample(path: Path) -> Path:
    """Make the pool of a run's folder whose synthesiser is trained; return the pool's folder."""
    folder, config, data = _reopen(path)
    phase_one.sample(folder, config, data, choose_device(config.device))
    return folder.pool


def score(path: Path) -> dict[str, object]:
    """Judge the pool of a run's folder against the real images; print and return the figures."""
    folder, config, data = _reopen(path)
    device = choose_device(config.device)
    pool = phase_one.pool_of(folder, config, data, device)
    test, _ = datasets.load_test(config)
    figures = finish.pool_figures(folder, config, data, pool, test, device)
    finish.show_pool(figures)
    return figures


def evaluate_data(path: Path, given: Mapping[str, str]) -> dict[str, object]:
    """Print and return the test figures of a run's classifier, on its own data or on what `given` names."""
    config = settings.override(settings.load(path), given)
    test, _ = datasets.load_test(config)
    figures = evaluate(path, test, config.shots, choose_device(config.device))
    finish.show_test(figures)
    return figures


def _open(config: RunConfig) -> RunFolder:
    """Check all that can be checked, then make the folder with the settings and the images."""
    check_settings(config)
    rundir.check_is_free(config)
    data = datasets.load(config, progress=True)
    for note in data.notes:
        say(f"note: {note}")
    folder = rundir.create(config)
    datasets.prepare(data, folder.prepared)
    return folder


def _reopen(path: Path) -> tuple[RunFolder, RunConfig, TrainingData]:
    config = settings.load(path)
    folder = RunFolder(path.absolute())
    return folder, config, _images(folder, config)


def _images(folder: RunFolder, config: RunConfig) -> TrainingData:
    """Return the prepared images; prepares them where the run was interrupted before."""
    if not (folder.prepared / DATA_FILE).exists():
        datasets.prepare(datasets.load(config, progress=True), folder.prepared)
    return datasets.open_prepared(folder.prepared)


def _walk(folder: RunFolder) -> None:
    config = settings.load(folder.path)
    data, device = _images(folder, config), choose_device(config.device)
    pool = phase_one.pool_of(folder, config, data, device)
    from cluster import phase_two  # RLlib takes seconds to import, and phase one does not need it

    phase_two.train(folder, config, data, pool)
    finish.finish(folder, config, data, pool, device)
    finish.show(folder)
