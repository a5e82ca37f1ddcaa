"""Rewards: from the results of an epoch's episodes to the numbers that the agents learn from.

A reward has two forms. Called with one episode's result and the name of the metric ε it returns a number and
its parts by name: what the environment returns, whatever other episodes there are. `together` takes the valid
episodes of an epoch and returns [K, 1], a number that all agents share, or [K, C], each agent's own, with the
parts of each episode. To add one, write a function `(result, metric) -> (reward, parts)` or such an object,
and its line in REWARDS.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from rlcas import registry
from rlcas.config import SamplerConfig
from rlcas.errors import UserError
from rlcas.metrics import signal_of
from rlcas.reinforce import advantages
from rlcas.types import EpisodeReport, EpochResult, Float64

Parts = dict[str, float]
RewardFunction = Callable[[EpochResult, str], tuple[float, Parts]]

CUBIC_OFFSET = 0.04
"""The 0.04 of the paper's reward."""


class Reward(Protocol):
    """What `REWARDS` holds."""

    def __call__(self, result: EpochResult, metric: str) -> tuple[float, Parts]:
        """Return the reward of one episode alone and its parts."""
        ...

    def together(self, results: Sequence[EpochResult], sampler: SamplerConfig) -> tuple[Float64, list[Parts]]:
        """Return the rewards of an epoch's valid episodes, [K, 1] or [K, C], and each one's parts."""
        ...


class Shared:
    """A function of one episode: all its agents share the number, whatever the other episodes achieved."""

    def __init__(self, alone: RewardFunction) -> None:
        self._alone = alone

    def __call__(self, result: EpochResult, metric: str) -> tuple[float, Parts]:
        """Return the function's value."""
        return self._alone(result, metric)

    def together(self, results: Sequence[EpochResult], sampler: SamplerConfig) -> tuple[Float64, list[Parts]]:
        """Return [K, 1]."""
        rewards, parts = zip(*(self(result, sampler.metric) for result in results), strict=True)
        return np.array(rewards, dtype=np.float64)[:, None], list(parts)


def cubic(result: EpochResult, metric: str) -> tuple[float, Parts]:
    """Return (ε + 0.04)³, the paper's reward (section 2.2)."""
    value = result.metrics[metric]
    return (value + CUBIC_OFFSET) ** 3, {metric: value}


def linear(result: EpochResult, metric: str) -> tuple[float, Parts]:
    """Return ε itself."""
    value = result.metrics[metric]
    return value, {metric: value}


class Rank:
    """The share of the other episodes that an episode beats by ε; ties count one half. Alone it is ε."""

    def __call__(self, result: EpochResult, metric: str) -> tuple[float, Parts]:
        """Return ε itself: there is nothing to compare with."""
        return linear(result, metric)

    def together(self, results: Sequence[EpochResult], sampler: SamplerConfig) -> tuple[Float64, list[Parts]]:
        """Return [K, 1] in [0, 1]; one half where there is only one."""
        values_K = np.array([result.metrics[sampler.metric] for result in results])
        differences_KK = np.sign(values_K[:, None] - values_K)  # 1 won, 0 tied (with itself too), -1 lost
        others = max(len(values_K) - 1, 1)
        # (won + tied / 2) / (K - 1), since won + tied + lost = K - 1.
        ranks_K = 0.5 + 0.5 * differences_KK.sum(axis=1) / others
        return ranks_K[:, None], [{sampler.metric: float(value)} for value in values_K]


class PerClass:
    """Each agent's own: its class's signal and a share of ε, both against the epoch's other episodes.

    A difference reward: an agent's reward depends on its own class alone, but for `sampler.team_share`.
    Alone it is ε.
    """

    def __call__(self, result: EpochResult, metric: str) -> tuple[float, Parts]:
        """Return ε itself: there is nothing to compare with."""
        return linear(result, metric)

    def together(self, results: Sequence[EpochResult], sampler: SamplerConfig) -> tuple[Float64, list[Parts]]:
        """Return [K, C]; a class without validation images has the team's share alone."""
        assert sampler.team_share is not None, "sampler.reward per_class has it"
        signals_KC = np.stack([signal_of(result, sampler.signal) for result in results])
        metrics_K1 = np.array([[result.metrics[sampler.metric]] for result in results])
        own_KC = np.nan_to_num(against_others(signals_KC))
        team_K1 = sampler.team_share * against_others(metrics_K1)
        parts = [
            {sampler.metric: float(metric), "own": float(own_C.mean()), "team": float(team)}
            for metric, own_C, team in zip(metrics_K1[:, 0], own_KC, team_K1[:, 0], strict=True)
        ]
        return own_KC + team_K1, parts


def against_others(values_KX: Float64) -> Float64:
    """Return [K, X]: each row minus the mean of the other rows; 0 where there is no other."""
    k = len(values_KX)
    # x_j - (sum - x_j) / (K - 1) = (x_j - mean) K / (K - 1).
    return (values_KX - values_KX.mean(axis=0)) * k / max(k - 1, 1)


REWARDS: dict[str, Reward] = {
    "cubic": Shared(cubic),
    "linear": Shared(linear),
    "rank": Rank(),
    "per_class": PerClass(),
}


def reward_named(name: str) -> Reward:
    """Return the reward of the setting `sampler.reward`; a function from outside is shared by all agents.

    Raises:
        UserError: the name is unknown, or names nothing that can be called.
    """
    found = registry.lookup(name, REWARDS, "sampler.reward")
    if not callable(found):
        raise UserError(
            f"sampler.reward {name!r} is not a function: name a function of an epoch's result and metric"
        )
    return found if hasattr(found, "together") else Shared(found)


def reward_alone(reward: Reward, result: EpochResult, metric: str, epoch: int) -> tuple[float, Parts]:
    """Return the reward of one episode, whatever others there are, and its parts.

    Args:
        reward: of `reward_named`.
        result: the episode's.
        metric: the name of ε.
        epoch: from 1, for the error's text.

    Raises:
        FloatingPointError: the reward is not finite.
    """
    value, parts = reward(result, metric)
    if not math.isfinite(value):
        raise FloatingPointError(f"the reward of epoch {epoch} is {value} ({parts})")
    return value, parts


def with_rewards(
    reports: Sequence[EpisodeReport], reward: Reward, sampler: SamplerConfig
) -> list[EpisodeReport]:
    """Return the reports of an epoch with the rewards that its valid episodes have together."""
    valid = [report for report in reports if report.valid]
    if not valid:
        return list(reports)
    results = [report.compared for report in valid if report.compared is not None]
    rewards_KX, parts = reward.together(results, sampler)
    with_own = {
        report.episode_index: dataclasses.replace(
            report,
            reward=float(rewards_X.mean()),
            reward_parts=own_parts,
            rewards_C=None if len(rewards_X) == 1 else rewards_X,
        )
        for report, rewards_X, own_parts in zip(valid, rewards_KX, parts, strict=True)
    }
    return [with_own.get(report.episode_index, report) for report in reports]


def without_trend(reports: Sequence[EpisodeReport], before: EpochResult | None) -> list[EpisodeReport]:
    """Return the reports of episodes that were trained in turn, each with its result without the epoch's trend.

    All learn from one another's weights, so that a later one is better whatever its composition. What an episode
    itself did is the change of a metric or signal over its share: v̄ + (d_j - d̄), with the values v_j after each
    valid episode, their changes d_j and the means v̄ and d̄ over the epoch. With a single episode it is v itself.

    Args:
        reports: of one epoch, in the order of training.
        before: the result of what the first one started from; None before the first epoch, whose first change then
            counts as the mean one.
    """
    valid = [report for report in reports if report.valid]
    results = [report.result for report in valid if report.result is not None]
    if not results:
        return list(reports)
    metrics = {
        name: _without_trend(
            [result.metrics[name] for result in results], before.metrics[name] if before else None
        )
        for name in results[0].metrics
    }
    per_class = {
        name: _without_trend(
            [result.per_class[name] for result in results], before.per_class[name] if before else None
        )
        for name in results[0].per_class
    }
    replaced = {
        report.episode_index: dataclasses.replace(
            report,
            without_trend=dataclasses.replace(
                result,
                metrics={name: float(values[j]) for name, values in metrics.items()},
                per_class={name: values[j] for name, values in per_class.items()},
            ),
        )
        for j, (report, result) in enumerate(zip(valid, results, strict=True))
    }
    return [replaced.get(report.episode_index, report) for report in reports]


def _without_trend(values: Sequence[float | Float64], before: float | Float64 | None) -> Float64:
    """Return [K, …]: the mean of values plus each one's change relative to the mean change."""
    values_K = np.asarray(values, dtype=np.float64)
    changes_K = np.empty_like(values_K)
    changes_K[1:] = np.diff(values_K, axis=0)
    if before is not None:
        changes_K[0] = values_K[0] - before
    else:
        changes_K[0] = changes_K[1:].mean(axis=0) if len(values_K) > 1 else 0.0
    return values_K.mean(axis=0) + (changes_K - changes_K.mean(axis=0))


def with_advantages(
    reports: Sequence[EpisodeReport], baseline: float, sampler: SamplerConfig
) -> list[EpisodeReport]:
    """Return the rewarded reports of an epoch with the advantages that its valid episodes have under B^t."""
    valid = [report for report in reports if report.valid]
    own = [[report.reward] if report.rewards_C is None else report.rewards_C for report in valid]
    # By the function that the learner calls, so that the record shows the weights of eq. 1.
    advantages_KX = advantages(torch.from_numpy(np.array(own)), baseline, sampler.advantages)
    means = dict(
        zip((report.episode_index for report in valid), advantages_KX.mean(dim=1).tolist(), strict=True)
    )
    return [
        dataclasses.replace(report, advantage=means[report.episode_index]) if report.valid else report
        for report in reports
    ]
