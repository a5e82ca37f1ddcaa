"""Trials of a sweep that train nothing real: the sampler over the trivial trainer."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trivial import TrivialTrainer

from cluster.rllib.algorithm import RLCAS, RLCASConfig
from cluster.sweeps.plan import SweepPlan, plan
from cluster.sweeps.resources import Room, trial_bundles
from cluster.sweeps.sweep import create
from cluster.sweeps.trial import SweepTrial
from cluster.sweeps.tuner import run_trials
from rlcas.runs import epoch_log
from rlcas.runs.sweep_folder import Sweep, read_sweep
from rlcas.training.saved_classifier import MODEL_FILE

IN_PROCESS = {"cluster.episode_runner": "in_process"}
"""For tests of trials to which the episodes' processes do not matter."""
NUM_CLASSES = 4
FAILING_COUNT = 14
"""The initial count with which a trial fails in its second epoch."""
CORES = {"CPU": 8.0}


class TrivialTrial(SweepTrial):
    """A trial without images."""

    def algorithm_config(self) -> RLCASConfig:
        faults = {(2, 0): "exception"} if self._config.sampler.initial_count == FAILING_COUNT else {}
        factory = functools.partial(TrivialTrainer, num_classes=NUM_CLASSES, faults=faults)
        return (
            RLCASConfig()
            .training(**dict(self._config.sampler))
            .episodes(
                trainer_factory=factory,
                num_classes=NUM_CLASSES,
                episode_runner=self._config.cluster.episode_runner,
            )
            .debugging(seed=self._config.seed, log_level="ERROR")
        )

    def class_names(self) -> Sequence[str]:
        return [f"class {c}" for c in range(NUM_CLASSES)]

    def save_model(self, algorithm: RLCAS) -> None:
        (self._folder.path / MODEL_FILE).write_bytes(algorithm.best.arrays["float32"].tobytes())


class DyingTrial(TrivialTrial):
    """One whose process dies once, in the epoch after the third."""

    def _epoch(self, algorithm: RLCAS) -> dict[str, Any]:
        mark = self._folder.path / "died"
        if algorithm.epoch == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._epoch(algorithm)


class LateSavingTrial(TrivialTrial):
    """One that saves every second epoch only when another trial has trained it, too."""

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        epoch = self._algorithm.epoch if self._algorithm is not None else 0
        folders = list(self._folder.path.parent.iterdir())
        deadline = time.monotonic() + 60
        while epoch % 2 == 0 and time.monotonic() < deadline:
            time.sleep(0.5)  # at least once, so that what the other one reported is taken before this is saved
            if sum(len(epoch_log.read_epochs(folder)) >= epoch for folder in folders) > 1:
                break
        super().save_checkpoint(checkpoint_dir)


def swept(path: Path, trial: type[SweepTrial] = TrivialTrial, concurrent: int = 1, **stated: Any) -> Sweep:
    """Run a whole sweep of trivial trials, and return what its folder holds."""
    planned = planned_sweep(path, **stated)
    return run_sweep(planned, trial, concurrent)


def planned_sweep(path: Path, **stated: Any) -> SweepPlan:
    """Make the folder of a sweep of trivial trials, and return its plan."""
    planned = plan({"data": "phantom", "out": str(path), "sampler.epochs": 4, "sampler.k": 1} | stated)
    create(planned, path)
    return planned


def run_sweep(planned: SweepPlan, trial: type[SweepTrial] = TrivialTrial, concurrent: int = 1) -> Sweep:
    """Run the trials of a sweep's folder, and return what it then holds."""
    path = planned.config.out
    bundles = {name: trial_bundles(config, concurrent, CORES) for name, config in planned.configs.items()}
    run_trials(read_sweep(path), planned.config, Room(bundles, concurrent), trial)
    return read_sweep(path)
