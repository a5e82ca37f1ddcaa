"""A whole run, stage by stage: images, synthesiser, pool, episodes, figures, report.

Each stage leaves its result in the run's folder and is passed over where that is there, so that `resume` is
the same walk again.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from cluster.pools import copies, make, stored
from cluster.pools.scores import score_pool
from cluster.runs import results
from cluster.runs.checks import check_data_fits, check_settings
from cluster.synthesis import train
from rlcas import data as datasets
from rlcas import settings
from rlcas.config import RunConfig
from rlcas.console import say, show_table
from rlcas.data.prepared import DATA_FILE
from rlcas.devices import choose_device
from rlcas.errors import UserError
from rlcas.evaluation.evaluate import evaluate, in_class_order
from rlcas.evaluation.features import check_extractor, require_weights
from rlcas.report import write_report
from rlcas.report.score_table import score_notes, score_table
from rlcas.runs import folder as run_folder
from rlcas.runs.context import RunContext
from rlcas.runs.folder import RunFolder
from rlcas.runs.replay import keep_recorded
from rlcas.storage import remote
from rlcas.storage.atomic import exclusive_lock
from rlcas.training.saved_classifier import load_classifier
from rlcas.types import ImageSet, TrainingData
from synth.training.workers import Workers, process_group


def run(config: RunConfig) -> Path:
    """Run both phases into a new folder and return it.

    Raises:
        UserError: a setting, a file or the folder is wrong; nothing is left behind then.
    """
    with process_group(choose_device(config.device)) as workers:
        folder = RunFolder(workers.first(lambda: _open(config, with_test=True).path))
        with _alone(folder, workers):
            _walk(folder, workers)
    if workers.leads:
        _publish(folder)
    return folder.path


def resume(path: Path) -> Path:
    """Go on with an interrupted run and return its folder; a finished one is only shown.

    Args:
        path: the run's folder, or its address.

    Raises:
        UserError: the folder is not a run's.
    """
    path = remote.local(path)
    config = settings.load(path)
    folder = RunFolder(path.absolute())
    if not folder.metrics.exists():
        with process_group(choose_device(config.device)) as workers, _alone(folder, workers):
            _walk(folder, workers)
        if workers.leads:
            _publish(folder)
        return folder.path
    say(f"{path} is finished")
    if not folder.report.exists():
        write_report(folder.path)
    results.show(folder)
    _publish(folder)
    return folder.path


def run_or_show(config: RunConfig) -> Path:
    """Run; where the folder holds a run of the same settings, go on with it, or show it if it is finished.

    Raises:
        UserError: the folder holds a run of other settings, or as `run`.
    """
    out = run_folder.local_out(config.out or run_folder.default_out(config))
    if not (out / settings.CONFIG_FILE).exists():
        return run(config)
    if settings.load(out) != run_folder.resolved(config):
        raise UserError(
            f"out {out} holds a run of other settings: name another folder with --out, or delete it"
        )
    return resume(out)


def synthesise(config: RunConfig) -> Path:
    """Train the synthesiser alone into a new folder and return it; `sample` and `resume` go on from there.

    Started by torchrun, its processes train together.
    """
    with process_group(choose_device(config.device)) as workers:
        path = workers.first(lambda: _open(config, with_test=False).path)
        folder, resolved, data = _reopen(path)
        with _alone(folder, workers):
            train.train(folder, resolved, data, choose_device(resolved.device))
        if workers.leads:
            _publish(folder)
            say(f"`rlcas synth sample {shlex.quote(str(path))}` makes its pool")
    return path


def sample(path: Path, given: Mapping[str, str] | None = None) -> Path:
    """Make the pool of a run's folder whose synthesiser is trained, and mark its copies; return its folder.

    Args:
        path: the run's folder.
        given: settings of where to sample, dotted as on the command line, in place of the run's own.

    Raises:
        UserError: the folder is not a run's, its synthesiser is not trained, or the pool is of another origin.
    """
    folder, config, data = _reopen(path)
    config = settings.override(config, given or {})
    device = choose_device(config.device)
    with exclusive_lock(folder.path):
        pool = make.sample(folder, config, data, device)
        copies.mark(folder, config, data, pool, device)
    say(f"pool: {folder.pool}")
    return folder.pool


def make_pool(path: Path) -> None:
    """Do phase one in a run's folder, or what is missing of it: images, synthesiser, pool, marks of copies.

    Raises:
        UserError: the folder is not a run's, or phase one cannot be done with its settings.
    """
    folder, config, data = _reopen(path)
    device = choose_device(config.device)
    with exclusive_lock(folder.path):
        pool = make.pool_of(folder, config, data, device)
        copies.mark(folder, config, data, pool, device)


def score(path: Path, given: Mapping[str, str] | None = None) -> dict[str, object]:
    """Judge the pool of a run's folder by the real images; print a table, keep and return the figures.

    Args:
        path: the run's folder.
        given: settings under `synth.scoring` to judge by, other than the run's; the pool's marks stay.

    Raises:
        UserError: the folder is not a run's, or has no pool.
    """
    folder, config, data = _reopen(path)
    scoring = settings.override(config, given or {})
    check_extractor(scoring.synth.scoring)
    device = choose_device(scoring.device)
    with exclusive_lock(folder.path):
        pool = stored.open_pool(folder, config, data)
        copies.mark(folder, config, data, pool, device)
        pool = stored.kept(folder, scoring, pool.folder)
        figures = score_pool(folder, scoring, data, pool, _test_if_any(scoring), device)
    show_table(score_table(figures))
    for note in score_notes(figures):
        say(note)
    say(f"{folder.image_scores}: a line an image; {folder.contact_sheet}: the nearest pairs")
    return figures


def _test_if_any(config: RunConfig) -> ImageSet | None:
    """Return the test images; None, and a note, where there are none: phase one does not need them."""
    try:
        test, _ = datasets.load_test(config)
    except UserError as error:
        say(f"note: no classifier is trained on the pool alone, for there are no real test images: {error}")
        return None
    return test


def evaluate_data(path: Path, given: Mapping[str, str]) -> dict[str, object]:
    """Print and return the test figures of a run's classifier, on its own data or on what `given` names."""
    path = remote.local(path, without=remote.BULKY)
    config = settings.override(settings.load(path), given)
    device = choose_device(config.device)
    known = load_classifier(path, device).meta.class_names
    test, found = datasets.load_test(config, num_classes=len(known))
    figures = evaluate(path, in_class_order(test, found, known, config.data), config.shots, device)
    results.show_test(figures)
    return figures


def _publish(folder: RunFolder) -> None:
    """Bring the end of a run to the address that its folder stands for."""
    remote.publish(folder.path)
    if (address := remote.address_for(folder.path)) is not None:
        say(f"all of it is at {address}")


@contextlib.contextmanager
def _alone(folder: RunFolder, workers: Workers) -> Iterator[None]:
    """Keep other commands out of the run's folder, which the processes of torchrun share; an interrupt tells its name.

    Raises:
        UserError: another command works there.
        KeyboardInterrupt: the user interrupted; the text says how to go on.
    """
    with exclusive_lock(folder.path) if workers.leads else contextlib.nullcontext():
        try:
            yield
        except KeyboardInterrupt as interrupt:
            again = f"interrupted; `rlcas resume {shlex.quote(str(folder.path))}` goes on"
            raise KeyboardInterrupt(*(interrupt.args or [again])) from None


def check(config: RunConfig) -> TrainingData:
    """Return the images to train on, after all that can be checked of settings and images.

    Raises:
        UserError: a setting, a file or an image is wrong.
    """
    check_settings(config)
    choose_device(config.device)
    from cluster.runtime.resources import check_demand  # Ray takes a second to import

    check_demand(config)
    require_weights(config.synth.scoring)
    data = datasets.load(config, progress=True)
    check_data_fits(config, data)
    make.check(config, data)
    return data


def _open(config: RunConfig, *, with_test: bool) -> RunFolder:
    """Check all that can be checked, then make the folder with the settings and the images."""
    run_folder.check_is_free(config)
    data = check(config)
    if with_test:
        datasets.require_test(config)
    for note in data.notes:
        say(f"note: {note}")
    folder = run_folder.create(config)
    datasets.prepare(data, folder.prepared)
    return folder


def _reopen(path: Path) -> tuple[RunFolder, RunConfig, TrainingData]:
    config = settings.load(path)
    folder = RunFolder(path.absolute())
    _prepare(folder, config)
    return folder, config, datasets.open_prepared(folder.prepared)


def _prepare(folder: RunFolder, config: RunConfig) -> None:
    """Prepare the images, and keep what is replayed, where that is still to be done."""
    if config.sampler.replay and not folder.replay.exists():
        keep_recorded(config.sampler.replay, folder.replay)
    if not (folder.prepared / DATA_FILE).exists():
        datasets.prepare(datasets.load(config, progress=True), folder.prepared)


def _walk(folder: RunFolder, workers: Workers) -> None:
    """Go all the way; the processes that torchrun started beside the first one help with the synthesiser only."""
    config = settings.load(folder.path)
    workers.first(lambda: _prepare(folder, config))
    data, device = datasets.open_prepared(folder.prepared), choose_device(config.device)
    if workers.size > 1 and config.pool is None:
        train.train(folder, config, data, device)
    if not workers.leads:
        return
    pool = make.pool_of(folder, config, data, device)
    copies.mark(folder, config, data, pool, device)
    pool = stored.kept(folder, config, pool.folder)
    from cluster.runs import training  # RLlib takes seconds to import, and phase one does not need it

    training.train(RunContext(folder, config, data, device), pool)
    results.finish(folder, config, data, pool, device)
    results.show(folder)
