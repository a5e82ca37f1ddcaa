"""The trials of a sweep under Ray Tune: its schedulers search, and we report each trial's end."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler

from cluster.runtime.node_folder import for_ray
from cluster.runtime.tune import QUIET_TUNE, environment_variables, preserving_signal_handlers
from cluster.sweeps.resources import Room
from cluster.sweeps.synchronous_pbt import MembersInTurn, SynchronousPBT
from cluster.sweeps.trial import CURRENT, EPOCHS, METRIC, TUNE_FOLDER, SweepTrial
from rlcas.config import SweepRunConfig
from rlcas.console import Progress, format_figure, format_seconds, progress, say
from rlcas.errors import last_line
from rlcas.runs.folder import ERROR_FILE
from rlcas.runs.sweep_folder import Sweep, Trial, TrialStatus
from rlcas.seeding import rng_for
from rlcas.settings.search_space import Space, named, perturbed, space_of
from rlcas.storage.atomic import write_text

ASHA_KEEPS_ONE_OF = 3
KEPT_CHECKPOINTS = 2
"""Of each trial: the best and the last. A population keeps all: another member may be about to copy any of them."""


def run_trials(
    table: Sweep, config: SweepRunConfig, room: Room, trainable: type[SweepTrial] = SweepTrial
) -> None:
    """Run the trials that `room` names to their ends, and save the table each time one ends.

    Args:
        table: the sweep's folder.
        config: the sweep's settings.
        room: what each trial reserves.
        trainable: what runs a trial.

    Raises:
        KeyboardInterrupt: the user interrupted them; all have ended.
    """
    # Failures of trials are reported by `Watcher`; Tune would log each a second time.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    trials = {trial.name: trial for trial in table.trials if trial.name in room.bundles}
    planned = [
        {
            "name": name,
            "settings": trial.settings,
            "bundles": room.bundles[name],
            "strategy": config.cluster.placement.upper(),
        }
        for name, trial in trials.items()
    ]
    num_epochs = sum(trial.num_epochs for trial in trials.values())
    with (
        environment_variables(QUIET_TUNE),
        progress("Epochs of all trials", num_epochs) as bar,
        preserving_signal_handlers(),
    ):
        tune.Tuner(
            trainable,
            param_space={
                "sweep": str(for_ray(table.path)),
                "metric": table.metric,
                # One grid over the planned points; Tune draws nothing. Its bundles travel in the config for
                # `default_resource_request`, a class method.
                "trial": tune.grid_search(planned),
            },
            tune_config=tune.TuneConfig(
                **searched(
                    config, len(trials), max(trial.num_epochs for trial in trials.values()), room.concurrent
                ),
                # The process has imported RLlib, which takes seconds.
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name=_new_session(table.path / TUNE_FOLDER),
                storage_path=str(for_ray(table.path / TUNE_FOLDER)),
                callbacks=[Watcher(table, bar)],
                checkpoint_config=tune.CheckpointConfig(
                    num_to_keep=None if config.sweep.search == "pbt" else KEPT_CHECKPOINTS,
                    # The incumbent's, as it is what an exchange of a population copies.
                    checkpoint_score_attribute=CURRENT,
                    checkpoint_frequency=1,
                ),
                # Counts only deaths: an exception in a trial is its result.
                failure_config=tune.FailureConfig(max_failures=config.cluster.episode_retries),
                verbose=0,
            ),
        ).fit()
    # After Ctrl-C `fit` returns as if all had ended (Tune 2.60 handles the signal itself).
    if any(trial.status == "waiting" for trial in trials.values()):
        raise KeyboardInterrupt


def searched(config: SweepRunConfig, num_trials: int, num_epochs: int, concurrent: int) -> dict[str, Any]:
    """Return what `tune.TuneConfig` takes for the setting `sweep.search`; without a scheduler all run to their ends.

    Args:
        config: the settings of the sweep.
        num_trials: trials that are to run.
        num_epochs: epochs of the longest.
        concurrent: trials side by side.
    """
    if config.sweep.search == "asha":
        scheduler = ASHAScheduler(
            time_attr=EPOCHS,
            metric=METRIC,
            mode="max",
            max_t=num_epochs,
            grace_period=min(config.sweep.grace_epochs, num_epochs),
            reduction_factor=ASHA_KEEPS_ONE_OF,
        )
        return {"max_concurrent_trials": concurrent, "scheduler": scheduler}
    if config.sweep.search == "pbt":
        every = config.sweep.exchange_epochs
        exchange = SynchronousPBT(
            time=EPOCHS,
            metric=CURRENT,
            every=every,
            num_members=num_trials,
            concurrent=concurrent,
            explore=explorer(space_of(config.sweep.over, config.model_dump()), config.seed),
            seed=config.seed,
        )
        return {
            # Tune takes one limit on concurrent trials only: here it is the search algorithm's own.
            "search_alg": MembersInTurn(time=EPOCHS, every=every, concurrent=concurrent),
            "scheduler": exchange,
        }
    return {"max_concurrent_trials": concurrent}


def explorer(space: Space, seed: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function of a better member's settings, which returns the next ones of the member that copies it."""
    exchanges = itertools.count()

    def explore(config: dict[str, Any]) -> dict[str, Any]:
        # A stream of its own for each copying member, independent of Tune's draws.
        rng = rng_for(seed, "exchange", next(exchanges))
        settings = perturbed(config["trial"]["settings"], space, rng)
        # A copy: the better member's config is in use.
        return {**config, "trial": {**config["trial"], "settings": settings}}

    return explore


class Watcher(tune.Callback):
    """Writes what the trials report into the table, and prints a line about each end."""

    def __init__(self, table: Sweep, bar: Progress) -> None:
        self._table = table
        self._bar = bar
        self._trials = {trial.name: trial for trial in table.trials}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Record the figures of an epoch.

        Args:
            iteration: of Tune's loop.
            trials: all of them.
            trial: the one that reports.
            result: what `SweepTrial.step` returned, and Tune's own figures.
        """
        row = self._trials[str(trial)]
        if "reason" in result:
            return
        # A trial that continues from a checkpoint reports some epochs again.
        self._bar.advance(max(result[EPOCHS] - row.epochs, 0), _best(self._table))
        row.metric, row.epochs, row.seconds = result[METRIC], result[EPOCHS], result["seconds"]
        row.best_epoch, row.settings = result["best_epoch"], result["settings"]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Record the end of a trial that was trained, stopped, or ended by an exception."""
        row = self._trials[str(trial)]
        row.reason = trial.last_result.get("reason", "")
        trained: TrialStatus = "finished" if row.epochs >= row.num_epochs else "stopped"
        row.status = "failed" if row.reason else trained
        self._ended(row)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Record the end of a trial whose process died once too often."""
        row = self._trials[str(trial)]
        text = Path(trial.error_file).read_text(encoding="utf-8")
        write_text(self._table.folder(row) / ERROR_FILE, text)
        row.status, row.reason = "failed", last_line(text)
        self._ended(row)

    def _ended(self, row: Trial) -> None:
        # The epochs that a stopped or failed trial does not train.
        self._bar.advance(row.num_epochs - row.epochs, _best(self._table))
        self._table.save()
        ended = sum(trial.status != "waiting" for trial in self._table.trials)
        outcome = row.reason or f"{self._table.metric} {format_figure(row.metric)}"
        say(
            f"{ended} of {len(self._table.trials)}: trial {row.name}  {named(row.settings)}  {row.status} after "
            f"{row.epochs} epochs in {format_seconds(row.seconds)}  {outcome}"
        )


def _best(table: Sweep) -> str:
    # NaN is the only number that differs from itself: a trial without a figure yet.
    best = max((trial.metric for trial in table.trials if trial.metric == trial.metric), default=None)
    return f"best {table.metric} {format_figure(best)}" if best is not None else ""


def _name(trial: Any) -> str:
    return trial.config["trial"]["name"]


def _new_session(folder: Path) -> str:
    """Return the name of this session's folder; those of earlier ones have checkpoints to resume from."""
    return f"{len(list(folder.glob('*'))) + 1:04d}"
