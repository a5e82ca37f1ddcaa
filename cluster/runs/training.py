"""Phase two of a run: epochs of K episodes on Ray, from the first or from a checkpoint."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator

import ray

from cluster.episodes.trainer_factory import trainer_factory
from cluster.population.local_runner import train_population_in_process
from cluster.population.tune_runner import train_population
from cluster.rllib import checkpoint
from cluster.rllib.algorithm import RLCAS
from cluster.rllib.checkpoint_writer import CheckpointWriter
from cluster.rllib.run_config import algorithm_config
from cluster.runtime.connection import ensure_ray, quiet_ray
from cluster.runtime.head_watchdog import watched_head
from cluster.runtime.interrupts import first_interrupt_waits
from rlcas.config import POPULATION, RunConfig
from rlcas.console import say
from rlcas.runs import epoch_log
from rlcas.runs.folder import RunFolder
from rlcas.runs.stages import stage
from rlcas.storage.atomic import quiet_threads_without_room
from rlcas.tracking.epoch_view import epoch_view
from rlcas.tracking.tensorboard import Tracker
from rlcas.training.saved_classifier import MODEL_FILE, save_incumbent
from rlcas.types import EpochRecord, Incumbent, TrainingData
from synth.pool import SyntheticPool

POPULATIONS = {"actors": train_population, "in_process": train_population_in_process}
"""What trains a population, by `cluster.episode_runner`."""


def train(folder: RunFolder, config: RunConfig, data: TrainingData, pool: SyntheticPool) -> None:
    """Train the epochs that are missing and save the classifier that was best on validation."""
    if (folder.path / MODEL_FILE).exists():
        return
    quiet_ray()
    started_here = not ray.is_initialized()
    trained = _population if config.sampler.agents == POPULATION else _agents
    try:
        best = trained(folder, config, data, pool)
        save_incumbent(folder.path, best, data, config)
    finally:
        if started_here:
            ray.shutdown()


def _agents(folder: RunFolder, config: RunConfig, data: TrainingData, pool: SyntheticPool) -> Incumbent:
    with stage(folder, f"Starting Ray with K={config.sampler.k} episodes", "ray"):
        ensure_ray(config.sampler.k)  # before the factory, which keeps on which node the folders lie
        algorithm = algorithm_config(folder, config, data.num_classes, pool.folder).build_algo()
    try:
        with (
            watched_head(folder.path),
            stage(folder, f"Training {config.sampler.epochs} epochs", "episodes"),
        ):
            _epochs(algorithm, folder, config, data)
        return algorithm.best
    finally:
        algorithm.stop()


def _epochs(algorithm: RLCAS, folder: RunFolder, config: RunConfig, data: TrainingData) -> None:
    """Train the missing epochs.

    Raises:
        KeyboardInterrupt: the user interrupted, and the epoch then under way is trained and kept.
    """
    if checkpoint.load_into(algorithm, folder.checkpoints):
        say(f"Going on after epoch {algorithm.epoch}")
    epoch_log.keep_epochs(folder.path, algorithm.epoch)
    with (
        _telling(folder, config, data) as tell,
        CheckpointWriter(folder.checkpoints) as writer,
        first_interrupt_waits() as interrupt,
    ):
        ending = False
        while algorithm.epoch < config.sampler.epochs and not ending:
            algorithm.train()
            assert algorithm.record is not None
            tell(algorithm.record)
            ending = interrupt.asked
            if ending or algorithm.epoch % config.cluster.checkpoint_epochs == 0:
                writer.save(algorithm)
    if ending:
        again = f"`rlcas resume {shlex.quote(str(folder.path))}` goes on"
        raise KeyboardInterrupt(f"interrupted after epoch {algorithm.epoch}, which is kept; {again}")


def _population(folder: RunFolder, config: RunConfig, data: TrainingData, pool: SyntheticPool) -> Incumbent:
    """Train a population; it has no checkpoints, so that an interrupted one starts with the first epoch again."""
    if config.cluster.episode_runner == "actors":
        ensure_ray(config.sampler.k)  # as above
    epoch_log.keep_epochs(folder.path, 0)
    title = f"Training a population of K={config.sampler.k} for {config.sampler.epochs} epochs"
    with stage(folder, title, "episodes"), _telling(folder, config, data) as tell:
        return POPULATIONS[config.cluster.episode_runner](
            trainer_factory(folder, config, pool.folder),
            config.sampler,
            config.cluster,
            num_classes=data.num_classes,
            seed=config.seed,
            folder=folder.population,
            tell=tell,
        )


@contextlib.contextmanager
def _telling(
    folder: RunFolder, config: RunConfig, data: TrainingData
) -> Iterator[Callable[[EpochRecord], None]]:
    """Yield what writes an epoch's record down and shows it."""
    with (
        quiet_threads_without_room(),
        Tracker(folder.path, data.class_names) as tracker,
        epoch_view(data.class_names, config.sampler.epochs, config.sampler.metric) as view,
    ):
        tracker.settings(config)

        def tell(record: EpochRecord) -> None:
            epoch_log.append_epoch(folder.path, record)
            tracker.epoch(record)
            view.show(record)

        yield tell
