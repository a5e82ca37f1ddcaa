"""One trial of a sweep as Ray Tune runs it: a step is an epoch of the sampler, and its folder is a run's."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ray import tune

from cluster.episodes import checkpoint
from cluster.pools.stored import open_pool
from cluster.rllib.algorithm import RLCAS, RLCASConfig
from cluster.rllib.run_config import algorithm_config
from cluster.runs.first_dose import dose_to_start_from
from cluster.runtime.connection import quiet_ray
from cluster.runtime.node_folder import check_reached
from rlcas import settings
from rlcas.data import open_prepared
from rlcas.devices import choose_device
from rlcas.errors import UserError, first_line
from rlcas.runs import epoch_log
from rlcas.runs.context import RunContext
from rlcas.runs.folder import ERROR_FILE, RunFolder
from rlcas.runs.sweep_folder import TRIALS_FOLDER
from rlcas.storage.atomic import write_text
from rlcas.tracking.hparams import write_hparams
from rlcas.tracking.tensorboard import Tracker
from rlcas.training.saved_classifier import save_incumbent
from rlcas.types import TrainingData

TUNE_FOLDER = "tune"
"""Tune's own files, below the sweep's folder: a folder for each session, and in it one a trial."""
METRIC = "metric"
"""Key of the metric of a trial's best classifier, by which the table ranks."""
CURRENT = "current"
"""Key of the metric of its incumbent, which an exchange of the population copies."""
EPOCHS = "epochs"
"""Key of the epochs that it has trained."""
WORST = -1.0
"""What a failed trial reports: below every metric."""


class SweepTrial(tune.Trainable):
    """Trains the sampler in a folder that has its settings; an exception ends the trial and is its result."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Return the planned bundles: one for the trial's own process, and one for each episode."""
        planned = config["trial"]
        return tune.PlacementGroupFactory(planned["bundles"], strategy=planned["strategy"])

    def setup(self, config: dict[str, Any]) -> None:
        """Read the settings; the episodes are started by the first step."""
        quiet_ray()
        self._sweep, self._metric = Path(config["sweep"]), config["metric"]
        self._point = config["trial"]["settings"]
        check_reached(self._sweep, settings.SWEEP_CONFIG_FILE)
        self._folder = RunFolder(self._sweep / TRIALS_FOLDER / self.trial_name)
        # An exchange of the population gives a member other settings than its folder has: the folder must say
        # what trained.
        self._config = settings.override(settings.load(self._folder.path), self._point)
        settings.save(self._config, self._folder.path)
        self._saved = False
        self._algorithm: RLCAS | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Run another trial in this process, which has imported RLlib already."""
        # Tune does not call it where it reuses the process.
        self.cleanup()
        # cached_property keeps its value there; the next trial may be on other images.
        self.__dict__.pop("_data", None)
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch and return what is reported to Tune; where it fails, `reason` says why."""
        try:
            return self._epoch(self._algorithm or self._started())
        # Returned and not raised: Tune retries a trial that raised as it does one whose process died, but this
        # would fail again.
        except Exception as error:
            write_text(self._folder.path / ERROR_FILE, traceback.format_exc())
            return {METRIC: WORST, CURRENT: WORST, "reason": first_line(error), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write our own checkpoint into Tune's folder."""
        if self._algorithm is not None:
            checkpoint.save(self._algorithm, Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Resume from our own checkpoint in Tune's folder."""
        algorithm = self._algorithm or self._started()
        checkpoint.load_into(algorithm, Path(checkpoint_dir))
        self._resume_after(algorithm.epoch)

    def cleanup(self) -> None:
        """Save the classifier of a trial that was stopped, and end the episodes."""
        if self._algorithm is None:
            return
        if not self._saved and self._algorithm.best.result is not None:
            self._save_best(self._algorithm)
        self._tracker.close()
        self._algorithm.stop()

    def algorithm_config(self) -> RLCASConfig:
        """Return the RLlib config of the trial's settings."""
        pool = open_pool(self._folder, self._config, self._data)
        context = RunContext(self._folder, self._config, self._data, choose_device(self._config.device))
        found_dose = dose_to_start_from(context, pool)
        return algorithm_config(self._folder, self._config, self._data, pool.folder, found_dose)

    def class_names(self) -> Sequence[str]:
        """Return the C names."""
        return self._data.class_names

    def save_model(self, algorithm: RLCAS) -> None:
        """Write the classifier that was best on validation."""
        # The trial's own process may have no GPU, whatever its episodes have.
        device = choose_device("cpu" if self._config.device == "cpu" else "auto")
        save_incumbent(self._folder.path, algorithm.best, self._data, self._config, device)

    @cached_property
    def _data(self) -> TrainingData:
        return open_prepared(self._folder.prepared)

    def _started(self) -> RLCAS:
        """Start the episodes, from the newest readable checkpoint of an earlier session if one exists."""
        self._algorithm = self.algorithm_config().build_algo()
        for folder in earlier_checkpoints(self._sweep, self.trial_name):
            try:
                if checkpoint.load_into(self._algorithm, folder):
                    break
            except UserError:
                continue  # torn by what ended that session: the one before it is complete
        self._resume_after(self._algorithm.epoch)
        return self._algorithm

    def _resume_after(self, epoch: int) -> None:
        """Cut the log back to `epoch` epochs; the tracker itself cuts TensorBoard's events."""
        # The log is written before the checkpoint and may be ahead of it.
        epoch_log.keep_epochs(self._folder.path, epoch)
        # After the cut, so that the epochs which are trained again are not counted twice.
        self._seconds = sum(line["seconds"] for line in epoch_log.read_epochs(self._folder.path))
        self._tracker = Tracker(self._folder.path, self.class_names())
        self._tracker.settings(self._config)

    def _epoch(self, algorithm: RLCAS) -> dict[str, Any]:
        # Nothing is left to train where the checkpoint is that of the last epoch: only its result is reported.
        if algorithm.epoch < self._config.sampler.epochs:
            algorithm.train()
            assert algorithm.record is not None
            self._seconds += algorithm.record.seconds
            epoch_log.append_epoch(self._folder.path, algorithm.record)
            self._tracker.epoch(algorithm.record)
        best, incumbent = algorithm.best.result, algorithm.incumbent.result
        assert best is not None and incumbent is not None
        done = algorithm.epoch >= self._config.sampler.epochs
        if done:
            self._save_best(algorithm)
        return {
            METRIC: best.metrics[self._metric],
            CURRENT: incumbent.metrics[self._metric],
            EPOCHS: algorithm.epoch,
            "best_epoch": algorithm.best.epoch,
            "seconds": self._seconds,
            "settings": self._point,
            "done": done,
        }

    def _save_best(self, algorithm: RLCAS) -> None:
        assert algorithm.best.result is not None
        self.save_model(algorithm)
        metrics = {self._metric: algorithm.best.result.metrics[self._metric]}
        write_hparams(self._folder.path, self._point, metrics, algorithm.epoch)
        self._saved = True


def earlier_checkpoints(sweep: Path, trial: str) -> list[Path]:
    """Return Tune's folders of a trial's checkpoints, the newest first: by session, then by number."""
    # Names of sessions and checkpoints are zero-padded, so that text sorts as numbers do.
    found = sweep.glob(f"{TUNE_FOLDER}/*/{trial}/checkpoint_*")
    return sorted(found, key=lambda path: (path.parents[1].name, path.name), reverse=True)
