"""A whole run, stage by stage: images, synthesiser, pool, episodes, figures, report.

Each stage writes its result into the run's folder and is skipped where the result exists, so that `resume` runs the
same stages again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.episodes.handover import describe_episodes
from cluster.pools.filters import mark_pool
from cluster.pools.make import check_phase_one, open_or_make_pool, sample_pool
from cluster.pools.scores import score_pool
from cluster.pools.stored import open_pool, run_pool
from cluster.pools.usefulness import held_out
from cluster.runs import results
from cluster.runs.checks import check_data_fits, check_settings
from cluster.runs.first_dose import check_search
from cluster.runs.more_epochs import is_finished, set_epochs
from cluster.runtime.resources import with_chosen_episodes
from cluster.synthesis.train import train_generator
from rlcas import data as datasets
from rlcas import settings
from rlcas.config import RunConfig
from rlcas.console import say, say_notes, show_table
from rlcas.devices import choose_device
from rlcas.errors import UserError
from rlcas.evaluation.features import check_extractor, require_weights
from rlcas.reports import write_report
from rlcas.reports.score_table import score_notes, score_table, usefulness_note, usefulness_table
from rlcas.runs.context import RunContext
from rlcas.runs.folder import RunFolder, create
from rlcas.runs.images import keep_images, prepare_again, test_images
from rlcas.runs.paths import (
    check_run_is_new,
    default_out,
    local_out,
    require_pool,
    resolved,
)
from rlcas.runs.replay import keep_recorded
from rlcas.storage import remote
from rlcas.storage.atomic import exclusive_lock, read_facts, write_json
from rlcas.training.saved_classifier import MODEL_FILE
from rlcas.types import ImageSet, TrainingData
from synth.training.workers import Workers, process_group


def run(config: RunConfig) -> Path:
    """Run both phases into a new folder and return it.

    Raises:
        UserError: a setting, a file or the folder is wrong; then no folder is made.
    """
    with process_group(choose_device(config.device)) as workers:
        # Of torchrun's processes one makes the folder; the others get its path.
        folder = RunFolder(workers.run_on_first(lambda: _open(config, with_test=True).path))
        with _alone(folder, workers):
            run_stages(folder, workers)
    if workers.leads:
        _publish(folder)
    return folder.path


def train(config: RunConfig) -> Path:
    """Run phase two alone, with the pool that the settings name, into a new folder and return it.

    Raises:
        UserError: no pool is named, or as `run`.
    """
    require_pool(config)
    return run(config)


def resume(path: str | Path, given: Mapping[str, Any] | None = None) -> Path:
    """Resume an interrupted run and return its folder; a finished one is only shown, or trained for more epochs.

    Args:
        path: the run's folder, or its address.
        given: `sampler.epochs` in place of the run's own: more than it has trained.

    Raises:
        UserError: the folder is not a run's, or as `cluster.runs.more_epochs.set_epochs`.
    """
    path = remote.local(path)
    config = settings.load(path)
    folder = RunFolder(path.absolute())
    if given or not is_finished(folder, config):
        with process_group(choose_device(config.device)) as workers, _alone(folder, workers):
            if given:
                workers.run_on_first(lambda: set_epochs(folder, given))
            workers.run_on_first(lambda: _check_again(folder))
            run_stages(folder, workers)
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
    """Run; where the folder holds a run of the same settings, resume it, or show it if it is finished.

    Raises:
        UserError: the folder holds a run of other settings, or as `run`.
    """
    out = local_out(config.out or default_out(config))
    if not (out / settings.CONFIG_FILE).exists():
        return run(config)
    # The folder has resolved settings, so that what is asked must be resolved before it is compared.
    if settings.load(out) != resolved(with_chosen_episodes(config)):
        raise UserError(
            f"out {out} holds a run of other settings: name another folder with --out, or delete it"
        )
    return resume(out)


def synthesise(config: RunConfig) -> Path:
    """Train the synthesiser alone into a new folder and return it; `sample` and `resume` continue from it.

    Where torchrun starts several processes, they train together.
    """
    with process_group(choose_device(config.device)) as workers:
        path = workers.run_on_first(lambda: _open(config, with_test=False).path)
        context = _reopen(path)
        with _alone(context.folder, workers):
            train_generator(context)
        if workers.leads:
            _publish(context.folder)
            say(f"`rlcas synth sample {shlex.quote(str(path))}` makes its pool")
    return path


def sample(path: str | Path, given: Mapping[str, str] | None = None) -> Path:
    """Make the pool of a run's folder whose synthesiser is trained, and mark its copies; return its folder.

    Args:
        path: the run's folder.
        given: settings to sample with in place of the run's own, such as device, dotted as on the command line.

    Raises:
        UserError: the folder is not a run's, its synthesiser is not trained, or the pool is of another origin.
    """
    context = _reopen(Path(path), given)
    with exclusive_lock(context.folder.path):
        mark_pool(context, sample_pool(context))
    say(f"pool: {context.folder.pool}")
    return context.folder.pool


def make_pool(path: Path) -> None:
    """Run the stages of phase one that are missing in a run's folder: images, synthesiser, pool, marks of copies.

    Raises:
        UserError: the folder is not a run's, or its settings do not suit phase one.
    """
    context = _reopen(path)
    with exclusive_lock(context.folder.path):
        mark_pool(context, open_or_make_pool(context))


def score(path: str | Path, given: Mapping[str, str] | None = None) -> dict[str, object]:
    """Compare the pool of a run's folder with the real images; print a table, save and return the figures.

    Args:
        path: the run's folder.
        given: settings under `synth.scoring` in place of the run's own; the marks of copies stay.

    Raises:
        UserError: the folder is not a run's, or has no pool.
    """
    path = Path(path)
    context = _reopen(path, given)
    folder, scoring = context.folder, context.config
    check_extractor(scoring.synth.scoring)
    if scoring.synth.scoring.usefulness:
        # For the error that it raises before anything is trained.
        held_out(context.data)
    of_run = dataclasses.replace(context, config=settings.load(path))
    with exclusive_lock(folder.path):
        pool = open_pool(folder, of_run.config, context.data)
        mark_pool(of_run, pool)
        pool = run_pool(folder, scoring, pool.folder)
        figures = score_pool(context, pool, _test_if_any(folder, of_run.config))
        _add_usefulness(folder, figures)
    show_table(score_table(figures))
    for note in score_notes(figures):
        say(note)
    if figures["usefulness"]:
        show_table(usefulness_table(figures))
        say(usefulness_note(figures["usefulness"]))
    say(f"{folder.image_scores}: a line an image; {folder.contact_sheet}: the nearest pairs")
    return figures


def _test_if_any(folder: RunFolder, config: RunConfig) -> ImageSet | None:
    """Return the test images; without any print a note and return None: phase one does not need them."""
    try:
        test, notes = test_images(folder, config)
    except UserError as error:
        say(f"note: no classifier is trained on the pool alone, for there are no real test images: {error}")
        return None
    say_notes(notes)
    return test


def _add_usefulness(folder: RunFolder, figures: Mapping[str, Any]) -> None:
    """Add the usefulness to the figures of a finished run, which are otherwise of its end, and to its report."""
    metrics = read_facts(folder.metrics)
    if figures["usefulness"] is None or "synthesis" not in metrics:
        return
    synthesis = {**metrics["synthesis"], "usefulness": figures["usefulness"]}
    write_json(folder.metrics, {**metrics, "synthesis": synthesis})
    write_report(folder.path)


def _publish(folder: RunFolder) -> None:
    """Upload the rest of a run to the address that its folder stands for."""
    remote.publish(folder.path)
    if (address := remote.address_for(folder.path)) is not None:
        say(f"all of it is at {address}")


@contextlib.contextmanager
def _alone(folder: RunFolder, workers: Workers) -> Iterator[None]:
    """Keep other commands out of the run's folder; the processes of torchrun share it.

    Raises:
        UserError: another command works in it.
        KeyboardInterrupt: the user interrupted; the text says how to resume.
    """
    # The first process holds it for all: flock would refuse a second one to the others of the same run.
    with exclusive_lock(folder.path) if workers.leads else contextlib.nullcontext():
        try:
            yield
        except KeyboardInterrupt as interrupt:
            # An interrupt between epochs has a text of its own, which says what is saved.
            again = f"interrupted; `rlcas resume {shlex.quote(str(folder.path))}` resumes it"
            raise KeyboardInterrupt(*(interrupt.args or [again])) from None


def check(config: RunConfig) -> TrainingData:
    """Return the images to train on, after all that can be checked of settings and images.

    Raises:
        UserError: a setting, a file or an image is wrong.
    """
    # Cheap checks first: the images are read only once the settings and Ray allow the run.
    check_settings(config)
    choose_device(config.device)
    from cluster.runtime.resources import check_demand  # Ray takes a second to import

    check_demand(config)
    require_weights(config.synth.scoring)
    data = datasets.load(config, progress=True)
    notes = check_data_fits(config, data)
    assert data.record is not None, "the images were read from their source"
    check_phase_one(config, data, data.record)
    check_search(config)
    return dataclasses.replace(data, notes=data.notes + notes)


def _open(config: RunConfig, *, with_test: bool) -> RunFolder:
    """Check the settings and the data, then make the folder with the settings and the images."""
    if config.sampler.episode == "auto":
        config = with_chosen_episodes(config)
        say(f"Episodes (sampler.episode auto): {describe_episodes(config.sampler)}")
    check_run_is_new(config)
    data = check(config)
    if with_test:
        datasets.require_test(config)
    say_notes(data.notes)
    folder = create(config)
    keep_images(data, folder)
    return folder


def _reopen(path: Path, given: Mapping[str, str] | None = None) -> RunContext:
    """Return the run of a folder, its images prepared; `given` settings replace its own."""
    config = settings.load(path)
    folder = RunFolder(path.absolute())
    _prepare(folder, config)
    # After the images are prepared: these stay the run's own, whatever is given.
    config = settings.override(config, given or {})
    return RunContext(folder, config, datasets.open_prepared(folder.prepared), choose_device(config.device))


def _prepare(folder: RunFolder, config: RunConfig) -> None:
    """Prepare the images and copy what is replayed, unless that is done."""
    if config.sampler.replay and not folder.replay.exists():
        keep_recorded(config.sampler.replay, folder.replay)
    say_notes(prepare_again(folder, config))


def _check_again(folder: RunFolder) -> None:
    """Check what a folder of another version or machine may not have been checked for, before phase one.

    Raises:
        UserError: Ray cannot start, or the settings of phase two do not fit the images.
    """
    if (folder.path / MODEL_FILE).exists():
        return
    from cluster.runtime.resources import check_demand  # Ray takes a second to import

    config = settings.load(folder.path)
    check_demand(config)
    _prepare(folder, config)
    if config.sampler.replay:
        # The run's own copy: the other run may be gone by now.
        sampler = config.sampler.model_copy(update={"replay": folder.replay})
        config = config.model_copy(update={"sampler": sampler})
    check_data_fits(config, datasets.open_prepared(folder.prepared))


def run_stages(folder: RunFolder, workers: Workers) -> None:
    """Do the stages that are missing; of torchrun's processes all but the first help with the synthesiser alone."""
    config = settings.load(folder.path)
    workers.run_on_first(lambda: _prepare(folder, config))
    data, device = datasets.open_prepared(folder.prepared), choose_device(config.device)
    context = RunContext(folder, config, data, device)
    # Training together is collective: every process must come here before all but the first return. The first
    # finds the generator trained when it makes the pool.
    if workers.size > 1 and config.pool is None:
        train_generator(context)
    if not workers.leads:
        return
    pool = open_or_make_pool(context)
    mark_pool(context, pool)
    pool = run_pool(folder, config, pool.folder)
    from cluster.runs import training  # RLlib takes seconds to import, and phase one does not need it

    training.train(context, pool)
    results.finish(context, pool)
    results.show(folder)
