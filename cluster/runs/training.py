"""Phase two of a run: its epochs, from the first or from a checkpoint."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import ray

from cluster.episodes import checkpoint
from cluster.episodes.checkpoint import Resumable
from cluster.episodes.checkpoint_writer import CheckpointWriter
from cluster.episodes.trainer_factory import trainer_factory
from cluster.population.population import Population
from cluster.rllib.run_config import algorithm_config
from cluster.runs.first_dose import dose_to_start_from
from cluster.runs.more_epochs import epochs_of_results
from cluster.runtime.connection import ensure_ray, quiet_ray
from cluster.runtime.head_watchdog import watched_head
from cluster.runtime.interrupts import first_interrupt_waits
from rlcas.config import POPULATION
from rlcas.console import say
from rlcas.runs import epoch_log
from rlcas.runs.context import RunContext
from rlcas.runs.stages import stage
from rlcas.storage.atomic import quiet_threads_without_room
from rlcas.tracking.epoch_view import epoch_view
from rlcas.tracking.tensorboard import Tracker
from rlcas.training.saved_classifier import MODEL_FILE, save_incumbent
from rlcas.types import EpochRecord, Incumbent
from synth.pool import SyntheticPool


class Trainee(Resumable, Protocol):
    """What trains the epochs of a run: `cluster.RLCAS` or a `Population`."""

    record: EpochRecord | None

    def train(self) -> Any:
        """Train one epoch; `record` is then that of it."""
        ...

    def stop(self) -> None:
        """End the episodes' processes."""
        ...


def train(context: RunContext, pool: SyntheticPool) -> None:
    """Train the epochs that are missing and save the classifier that was best on validation."""
    # Written after the last epoch, whole or not at all; that of an earlier end does not count.
    earlier_end = epochs_of_results(context.folder, context.config) not in (None, context.config.sampler.epochs)
    if (context.folder.path / MODEL_FILE).exists() and not earlier_end:
        return
    quiet_ray()
    # A connection of the caller's must survive the run.
    started_here = not ray.is_initialized()
    try:
        best = _best(context, pool)
        save_incumbent(context.folder.path, best, context.data, context.config, context.device)
    finally:
        if started_here:
            ray.shutdown()


def _best(context: RunContext, pool: SyntheticPool) -> Incumbent:
    trainee = _started(context, pool)
    try:
        watched = watched_head(context.folder.path) if ray.is_initialized() else contextlib.nullcontext()
        title = f"Training {_population_of(context)}{context.config.sampler.epochs} epochs"
        with watched, stage(context.folder, title, "episodes"):
            _train_missing(trainee, context)
        return trainee.best
    finally:
        trainee.stop()


def _population_of(context: RunContext) -> str:
    sampler = context.config.sampler
    return f"a population of K={sampler.k} for " if sampler.agents == POPULATION else ""


def _started(context: RunContext, pool: SyntheticPool) -> Trainee:
    sampler, in_process = context.config.sampler, context.config.cluster.episode_runner == "in_process"
    if sampler.agents == POPULATION and in_process:
        return _population(context, pool)  # the only one without RLlib and actors, so without Ray
    found_dose = dose_to_start_from(context, pool)
    with stage(context.folder, f"Starting Ray with K={sampler.k} episodes", "ray"):
        # Before the trainer's factory, which records on which node the folders are.
        ensure_ray(sampler.num_workers, context.config.cluster.worker_niceness)
        if sampler.agents == POPULATION:
            return _population(context, pool)
        return algorithm_config(
            context.folder, context.config, context.data, pool.folder, found_dose
        ).build_algo()


def _population(context: RunContext, pool: SyntheticPool) -> Population:
    # Of a run begun by an earlier version; populations have checkpoints now.
    shutil.rmtree(context.folder.population, ignore_errors=True)
    return Population(
        trainer_factory(context.folder, context.config, pool.folder),
        context.config.sampler,
        context.config.cluster,
        num_classes=context.data.num_classes,
        seed=context.config.seed,
    )


def _train_missing(trainee: Trainee, context: RunContext) -> None:
    """Train the missing epochs, with their checkpoints.

    Raises:
        KeyboardInterrupt: the user interrupted, and the epoch then under way is trained and saved.
    """
    folder, config = context.folder, context.config
    if checkpoint.load_into(trainee, folder.checkpoints):
        say(f"Resuming after epoch {trainee.epoch}")
    # The log is always ahead of the checkpoints: the epochs after this one are trained and logged again.
    epoch_log.keep_epochs(folder.path, trainee.epoch)
    with (
        _recording(context) as record_epoch,
        CheckpointWriter(folder.checkpoints) as writer,
        first_interrupt_waits() as interrupt,
    ):
        ending = False
        while trainee.epoch < config.sampler.epochs and not ending:
            trainee.train()
            assert trainee.record is not None
            # Before the checkpoint, which must never be ahead of the log.
            record_epoch(trainee.record)
            ending = interrupt.asked
            # A first Ctrl-C ends the run after the epoch, and must not lose it.
            if ending or trainee.epoch % config.cluster.checkpoint_epochs == 0:
                writer.save(trainee)
    if ending:
        again = f"`rlcas resume {shlex.quote(str(folder.path))}` continues"
        raise KeyboardInterrupt(f"interrupted after epoch {trainee.epoch}, which is saved; {again}")


@contextlib.contextmanager
def _recording(context: RunContext) -> Iterator[Callable[[EpochRecord], None]]:
    """Yield a function that writes an epoch's record to the run's log and to TensorBoard, and shows it."""
    folder, config, class_names = context.folder.path, context.config, context.data.class_names
    with (
        quiet_threads_without_room(),
        Tracker(folder, class_names) as tracker,
        epoch_view(class_names, config.sampler.epochs, config.sampler.metric) as view,
    ):
        tracker.settings(config)
        tracker.notes(context.data.notes)

        def record_epoch(record: EpochRecord) -> None:
            epoch_log.append_epoch(folder, record)
            tracker.epoch(record)
            view.show(record)

        yield record_epoch
