"""The environment that the agents act on: one step is one epoch of the classifier.

State: the composition, counts of synthetic images per class in a mini-batch. Action: -step, 0 or +step for
each class. Reward: of the validation metric after the epoch (paper, section 2.2).
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, MultiDiscrete
from numpy.typing import NDArray

from envs.observations import Observer
from rlcas import settings
from rlcas.batches.composition import ACTIONS, clamped_in, composition_of, initial_counts
from rlcas.config import RunConfig
from rlcas.devices import compute_on_one_thread_if_forked
from rlcas.errors import UserError
from rlcas.rewards import reward_alone, reward_named
from rlcas.types import (
    EpisodeReport,
    EpisodeTask,
    EpisodeTrainer,
    EpochResult,
    Float32,
    Incumbent,
    Int64,
    SyntheticSource,
)

SHOTS = ("many", "medium", "few")


class BatchCompositionEnv(gym.Env[Float32, NDArray[np.integer[Any]]]):
    """One classifier, trained epoch by epoch under the compositions that the actions make.

    Observation: Box [D] float32, what `sampler.observation` names (`envs.observations`). Action:
    MultiDiscrete([3] * C), index 0, 1, 2 for -step, 0, +step. A step's outcome is a pure function of
    (incumbent, actions, settings): the seed of `reset` changes nothing. Processes that hold one, such as those of
    `gymnasium.make_vec(..., vectorization_mode="async")`, are started by "spawn": in a forked one torch computes on
    one thread, with a warning.

    Args:
        config: a run's settings, or overrides of the preset's as a nested mapping.
        pool: synthetic images; None takes the training images themselves.
        trainer: what trains an epoch; None builds the classifier trainer of `config`.

    Raises:
        UserError: a setting is unknown, or does not fit the data or its number of classes.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so
    observation_space: Box
    action_space: MultiDiscrete

    def __init__(
        self,
        config: RunConfig | Mapping[str, Any] | None = None,
        *,
        pool: SyntheticSource | None = None,
        trainer: EpisodeTrainer | None = None,
    ) -> None:
        compute_on_one_thread_if_forked()
        self.config = config if isinstance(config, RunConfig) else settings.of(config or {})
        self.sampler = self.config.sampler
        self.trainer = trainer or _classifier_trainer(self.config, pool)
        self.num_classes = self.trainer.num_classes
        self.observer = Observer(self.sampler)
        self.observation_space = self.observer.space(self.num_classes)
        self.action_space = MultiDiscrete([len(ACTIONS)] * self.num_classes)
        self._initial_counts_C = initial_counts(self.sampler, self.num_classes)
        self._reward = reward_named(self.sampler.reward)
        self._incumbent: Incumbent | None = None
        self._task: EpisodeTask | None = None
        self._episode_index = 0
        self._index_keyword = _index_keyword(self.trainer)

    @property
    def incumbent(self) -> Incumbent:
        """The incumbent that the last step trained, or the last reset set."""
        assert self._incumbent is not None, "reset() comes first"
        return self._incumbent

    def initial(self, counts_C: Int64) -> Incumbent:
        """Return the untrained classifier with the composition `counts_C`."""
        return self.trainer.initial(np.asarray(counts_C, dtype=np.int64))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32, dict[str, Any]]:
        """Start from `options["incumbent"]` as episode `options["episode_index"]`; without, from the initial one.

        The index may be given as `options["child"]`, its name before 0.2. With `options["task"]` (an EpisodeTask) the
        next step is that episode, which may be a share of an epoch or act on another composition than the incumbent's.
        """
        super().reset(seed=seed)
        options = options or {}
        self._task = options.get("task")
        self._episode_index = options.get("episode_index", options.get("child", 0))
        self._incumbent = options.get("incumbent") or self.initial(self._initial_counts_C)
        return self.observer.observe(self.incumbent), {}

    def step(self, action: NDArray[np.integer[Any]]) -> tuple[Float32, float, bool, bool, dict[str, Any]]:
        """Train one epoch under the composition that `action` makes, and reward it.

        Returns:
            observation, reward, terminated (never), truncated (at `sampler.epochs`), and info: `report`
            (an EpisodeReport) and the recall of each shot group that is not empty.

        Raises:
            FloatingPointError: a loss or the reward is not finite; the incumbent stays.
            UserError: the trainer does not measure `sampler.metric`.
        """
        report, result, trained = self._trained(action)
        reward, parts = reward_alone(self._reward, result, self.sampler.metric, report.epoch)
        self._incumbent = trained  # not before its reward is known to be finite
        report = dataclasses.replace(report, reward=reward, reward_parts=parts)
        truncated = trained.epoch >= self.sampler.epochs  # not terminated: the run could be trained further
        shots = {
            name: value for name, value in result.metrics.items() if name in SHOTS and not math.isnan(value)
        }
        return self.observer.observe(trained), reward, False, truncated, {"report": report, **shots}

    def train(self, action: NDArray[np.integer[Any]]) -> EpisodeReport:
        """Train one epoch as `step` does and return its report without a reward.

        This is for who rewards the episodes of an epoch together (`rlcas.rewards.with_rewards`).

        Raises:
            FloatingPointError: a loss is not finite; the incumbent stays.
            UserError: the trainer does not measure `sampler.metric`.
        """
        report, _, self._incumbent = self._trained(action)
        return report

    def _trained(self, action: NDArray[np.integer[Any]]) -> tuple[EpisodeReport, EpochResult, Incumbent]:
        """Return the report and the result of an epoch and the incumbent that it trained."""
        compute_on_one_thread_if_forked()  # also where the environment was built before the fork
        parent, task = self.incumbent, self._next_task(np.asarray(action, dtype=np.int64))
        counts_C = composition_of(self.sampler, task.epoch, task.base_C, task.actions_C)
        started = time.perf_counter()
        result = self._result(parent, counts_C, task)
        self._check_usable(result, task.epoch)
        trained = dataclasses.replace(self.trainer.trained(), epoch=task.epoch, result=result)
        report = EpisodeReport(
            epoch=task.epoch,
            episode_index=task.episode_index,
            status="ok",
            actions_C=task.actions_C,
            counts_C=counts_C,
            num_clamped=clamped_in(self.sampler, task),
            # A position is the number of images drawn so far.
            num_synthetic=int((trained.positions_C - parent.positions_C).sum()),
            result=result,
            seconds=time.perf_counter() - started,
        )
        return report, result, trained

    def _next_task(self, actions_C: Int64) -> EpisodeTask:
        """Return the task of `reset`, or the whole epoch after the incumbent's."""
        task, self._task = self._task, None
        if task is not None:
            return dataclasses.replace(task, actions_C=actions_C)
        parent = self.incumbent
        return EpisodeTask(
            epoch=parent.epoch + 1,
            episode_index=self._episode_index,
            actions_C=actions_C,
            base_C=parent.counts_C,
        )

    def _result(self, parent: Incumbent, counts_C: Int64, task: EpisodeTask) -> EpochResult:
        if task.share.total == 1:
            return self.trainer.train_epoch(parent, counts_C, **{self._index_keyword: task.episode_index})
        train_share = getattr(self.trainer, "train_share", None)
        if train_share is None:
            raise UserError(
                f"sampler.episode share: {type(self.trainer).__name__} has no train_share, which trains a part of an "
                "epoch: add it (rlcas.types.ShareTrainer), or use sampler.episode whole"
            )
        return train_share(
            parent, counts_C, epoch=task.epoch - 1, episode_index=task.episode_index, share=task.share
        )

    def merged(self, incumbents: Sequence[Incumbent]) -> Incumbent:
        """Return the mean of classifiers that were trained from one (`rlcas.types.ShareTrainer.merged`).

        Raises:
            FloatingPointError: its loss on the validation images is not finite.
            UserError: the trainer cannot merge.
        """
        merged = getattr(self.trainer, "merged", None)
        if merged is None:
            raise UserError(
                f"sampler.handover merge: {type(self.trainer).__name__} has no merged, which averages classifiers: "
                "add it (rlcas.types.ShareTrainer), or use another sampler.handover"
            )
        incumbent = merged(incumbents)
        self._check_usable(incumbent.result, incumbent.epoch)
        return incumbent

    def _check_usable(self, result: EpochResult, epoch: int) -> None:
        if not (result.finite and math.isfinite(result.val_loss)):
            raise FloatingPointError(
                f"a loss of epoch {epoch} is not finite (train {result.train_loss}, validation {result.val_loss})"
            )
        if self.sampler.metric not in result.metrics:
            raise UserError(
                f"sampler.metric {self.sampler.metric!r} is unknown: use one of "
                f"{', '.join(sorted(result.metrics))}"
            )


def _index_keyword(trainer: EpisodeTrainer) -> str:
    """Return what the trainer calls the episode's index: trainers written before 0.2 call it `child`."""
    parameters = inspect.signature(trainer.train_epoch).parameters
    return "child" if "child" in parameters else "episode_index"


def _classifier_trainer(config: RunConfig, pool: SyntheticSource | None) -> EpisodeTrainer:
    from rlcas import data
    from rlcas.batches.sources import RealImages
    from rlcas.devices import choose_device
    from rlcas.training.trainer import ClassifierTrainer

    training = data.load(config)
    pool = pool or RealImages(training.train)
    return ClassifierTrainer(training, config, pool=pool, device=choose_device(config.device))
