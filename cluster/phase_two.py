"""Phase two of a run: epochs of K episodes on Ray, from the first or from a checkpoint."""

from __future__ import annotations

import functools
from pathlib import Path

import ray

from cluster import checkpoint
from cluster.algorithm import RLCAS
from cluster.algorithm_config import RLCASConfig
from cluster.checkpoint_writer import CheckpointWriter
from cluster.judging import kept
from cluster.stages import stage
from cluster.start import quiet_ray
from rlcas import records, settings
from rlcas.config import RunConfig
from rlcas.console import epoch_view, say
from rlcas.data import open_prepared
from rlcas.devices import choose_device
from rlcas.evaluate import MODEL_FILE, save_incumbent
from rlcas.rundir import RunFolder
from rlcas.tracking import Tracker
from rlcas.trainer import ClassifierTrainer
from rlcas.types import EpisodeTrainer, TrainingData
from synth.pool import SyntheticPool


def build_trainer(run_folder: Path, pool_folder: Path) -> EpisodeTrainer:
    """Build the classifier trainer from a run's folder, on whichever actor calls it."""
    folder, config = RunFolder(run_folder), settings.load(run_folder)
    data, pool = open_prepared(folder.prepared), kept(folder, config, pool_folder)
    return ClassifierTrainer(data, config, pool=pool, device=choose_device("auto"))


def algorithm_config(folder: RunFolder, config: RunConfig, num_classes: int, pool_folder: Path) -> RLCASConfig:
    """Return the RLlib config of a run's sampler."""
    return (
        RLCASConfig()
        .training(**dict(config.sampler))
        .episodes(
            trainer_factory=functools.partial(build_trainer, folder.path, pool_folder),
            num_classes=num_classes,
            **dict(config.cluster),
        )
        .debugging(seed=config.seed, log_level="ERROR")
    )


def train(folder: RunFolder, config: RunConfig, data: TrainingData, pool: SyntheticPool) -> None:
    """Train the epochs that are missing and save the classifier that was best on validation."""
    if (folder.path / MODEL_FILE).exists():
        return
    quiet_ray()
    started_here = not ray.is_initialized()
    with stage(folder, f"Starting Ray with K={config.sampler.k} episodes", "ray"):
        algorithm = algorithm_config(folder, config, data.num_classes, pool.folder).build_algo()
    try:
        with stage(folder, f"Training {config.sampler.epochs} epochs", "episodes"):
            _epochs(algorithm, folder, config, data)
        save_incumbent(folder.path, algorithm.best, data, config.classifier)
    finally:
        algorithm.stop()
        if started_here:
            ray.shutdown()


def _epochs(algorithm: RLCAS, folder: RunFolder, config: RunConfig, data: TrainingData) -> None:
    if checkpoint.load_into(algorithm, folder.checkpoints):
        say(f"Going on after epoch {algorithm.epoch}")
    records.keep_epochs(folder.path, algorithm.epoch)
    with (
        Tracker(folder.path, data.class_names) as tracker,
        epoch_view(data.class_names, config.sampler.epochs, config.sampler.metric) as view,
        CheckpointWriter(folder.checkpoints) as writer,
    ):
        tracker.settings(config)
        while algorithm.epoch < config.sampler.epochs:
            algorithm.train()
            assert algorithm.record is not None
            records.append_epoch(folder.path, algorithm.record)
            tracker.epoch(algorithm.record)
            view.show(algorithm.record)
            if algorithm.epoch % config.cluster.checkpoint_epochs == 0:
                writer.save(algorithm)
