"""Population-based training over the counts (`sampler.agents pbt`), by Ray Tune's own scheduler: a control.

K members train an episode an epoch side by side, each under a composition of its own. After every epoch the worst
quarter take over what one of the best quarter left, weights and counts, and act once at random.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.error import TuneError
from ray.tune.experiment import Trial

from cluster.episodes.episode import TrainerFactory
from cluster.episodes.incumbent_file import read_incumbent
from cluster.episodes.selection import EpisodeError
from cluster.population.epochs import PopulationEpochs, first_places
from cluster.population.member import PLACE, REPORT, SCORE, TIE, Member, left_by
from cluster.population.synchronous_pbt import SynchronousPBT
from cluster.runtime.connection import ensure_ray
from cluster.runtime.node_folder import for_ray
from cluster.runtime.resources import episode_resources
from cluster.runtime.tune import (
    QUIET_TUNE_WITHOUT_SIGINT,
    environment_variables,
    preserving_global_random_state,
    preserving_signal_handlers,
)
from rlcas.batches.composition import ACTIONS
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.errors import UserError
from rlcas.types import EpisodeReport, EpochRecord, Incumbent

TIME = "training_iteration"


def train_population(
    trainer_factory: TrainerFactory,
    sampler: SamplerConfig,
    cluster: ClusterConfig,
    *,
    num_classes: int,
    seed: int,
    folder: Path,
    tell: Callable[[EpochRecord], None],
) -> Incumbent:
    """Train a population from the first epoch to the last and return the best classifier on validation.

    Args:
        trainer_factory: builds what trains an epoch, on each member.
        sampler: the sampler's settings; K is the number of members.
        cluster: what a member may take.
        num_classes: C.
        seed: the run's seed.
        folder: where members leave their state while they train; every node must reach it. It is removed.
        tell: is given every epoch's record.

    Raises:
        EpisodeError: a member failed; the text holds its traceback.
        UserError: a setting is wrong, or the members ask more than Ray has.
    """
    ensure_ray(sampler.k)
    resources = episode_resources(cluster, sampler.k, ray.cluster_resources())
    epochs = PopulationEpochs(sampler, num_classes, tell)
    recorder = Recorder(epochs, sampler.k, folder)
    shutil.rmtree(folder, ignore_errors=True)
    config = {
        PLACE: tune.grid_search(first_places(sampler.k, num_classes, seed)),
        "trainer_factory": trainer_factory,
        "sampler": sampler,
        "threads": cluster.concrete(sampler.k).threads_per_episode,
        "folder": for_ray(folder),
    }
    try:
        with (
            environment_variables(QUIET_TUNE_WITHOUT_SIGINT),
            preserving_global_random_state(),
            preserving_signal_handlers(),
        ):
            scheduler = CountsScheduler(num_classes, sampler.k, seed)
            errors = _tuner(config, resources, scheduler, recorder).fit().errors
    except TuneError:
        if recorder.fault is None:
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if recorder.fault is not None:
        raise recorder.fault
    if errors:
        cause = getattr(errors[0], "cause", None)
        raise cause if isinstance(cause, UserError) else EpisodeError(str(errors[0]))
    return epochs.best


def _tuner(
    config: dict[str, Any], resources: dict[str, float], scheduler: CountsScheduler, recorder: Recorder
) -> tune.Tuner:
    """Return Tune on the members of `config`, each with its own share of the machine."""
    return tune.Tuner(
        tune.with_resources(Member, tune.PlacementGroupFactory([resources])),
        param_space=config,
        tune_config=tune.TuneConfig(
            scheduler=scheduler, reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(config["folder"]),
            stop={TIME: config["sampler"].epochs},
            failure_config=tune.FailureConfig(fail_fast=True),
            callbacks=[recorder],
            verbose=0,
        ),
    )


class CountsScheduler(SynchronousPBT):
    """Exchanges after every epoch.

    Args:
        num_classes: C.
        num_members: K.
        seed: the run's seed.
    """

    _trial_state: dict[Trial, Any]

    def __init__(self, num_classes: int, num_members: int, seed: int) -> None:
        super().__init__(
            time=TIME,
            metric=SCORE,
            every=1,
            num_members=num_members,
            concurrent=num_members,
            explore=_explorer(num_classes),
            seed=seed,
        )

    def _quantiles(self) -> tuple[list[Trial], list[Trial]]:
        """Return the worst and the best members, worst first; ties go to less validation loss, then the lower index.

        Tune sorts by score and keeps the order of the equal ones.
        """

        def tie(of: tuple[Trial, Any]) -> tuple[float, int]:
            trial, state = of
            return state.last_result[TIE], -trial.config[PLACE].member

        self._trial_state = dict(sorted(self._trial_state.items(), key=tie))
        return super()._quantiles()

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the config of a member that takes over another's state: whose, and when, Tune does not tell."""
        config, operations = super()._get_new_config(trial, trial_to_clone)
        place = replace(
            config[PLACE],
            member=trial.config[PLACE].member,
            parent=trial_to_clone.config[PLACE].member,
            epoch=self._trial_state[trial_to_clone].last_train_time,
        )
        return {**config, PLACE: place}, operations


def _explorer(num_classes: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what Tune calls on the config of a better member: it draws the actions of the one that takes over."""

    def explore(config: dict[str, Any]) -> dict[str, Any]:
        actions = tuple(random.choices(range(len(ACTIONS)), k=num_classes))
        return {**config, PLACE: replace(config[PLACE], actions=actions)}

    return explore


class Recorder(tune.Callback):
    """Gathers the members' reports and has an epoch told when all are there."""

    fault: Exception | None = None
    """What went wrong in telling an epoch, of which Tune keeps the text alone."""

    def __init__(self, epochs: PopulationEpochs, num_members: int, folder: Path) -> None:
        self._epochs, self._num_members, self._folder = epochs, num_members, folder
        self._reports: dict[int, EpisodeReport] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune keeps a copy of its callbacks on the disk, and this one goes on in no other process."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Take a member's report out of its result; Tune need not log it."""
        report: EpisodeReport = result.pop(REPORT)
        self._reports[report.episode_index] = report
        if len(self._reports) == self._num_members:
            try:
                self._epoch([self._reports[episode_index] for episode_index in sorted(self._reports)])
            except Exception as error:
                self.fault = error
                raise
            self._reports = {}

    def _epoch(self, reports: list[EpisodeReport]) -> None:
        """Tell an epoch; what its members started from is no longer needed."""
        epoch = reports[0].epoch
        self._epochs.end(reports, lambda member: read_incumbent(left_by(self._folder, epoch, member)))
        shutil.rmtree(left_by(self._folder, epoch - 1, 0).parent, ignore_errors=True)
