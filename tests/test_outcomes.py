"""Rewards of an epoch's episodes together, where the reward of one of them fails."""

from __future__ import annotations

import dataclasses
import math
import re
import sys

import numpy as np
import pytest
from trivial import TrivialTrainer

from cluster.episodes.outcomes import status_of, with_valid_rewards
from rlcas.config import SamplerConfig
from rlcas.errors import UserError
from rlcas.rewards import REWARDS, reward_named
from rlcas.types import EpisodeReport, EpochResult, Incumbent, Int64

NUM_CLASSES = 4


def report(episode_index: int, f1: float) -> EpisodeReport:
    result = EpochResult(
        metrics={"f1": f1},
        val_loss=0.0,
        train_loss=0.0,
        per_class={"log_likelihood": np.array([f1, -f1])},
        num_images=1,
        finite=True,
    )
    counts_C = np.array([0, 2])
    return EpisodeReport(
        epoch=3,
        episode_index=episode_index,
        status="ok",
        actions_C=np.array([0, 2]),
        counts_C=counts_C,
        num_clamped=1,
        result=result,
        retries=episode_index,
    )


def faulty(result: EpochResult, metric: str) -> tuple[float, dict[str, float]]:
    """A user's reward that fails above 0.5, in a way of its own for each value."""
    value = result.metrics[metric]
    if value == 0.6:
        return math.nan, {metric: value}
    if value == 0.7:
        raise ValueError("no reward above 0.65")
    if value == 0.8:
        raise MemoryError("no room for a reward")
    if value == 0.9:
        sys.exit("a reward ends the process")
    return value, {metric: value}


class FaultyTogether:
    """A user's reward that compares the episodes, and cannot compare one above 0.5."""

    def __call__(self, result: EpochResult, metric: str) -> tuple[float, dict[str, float]]:
        return faulty(result, metric)

    def together(
        self, results: list[EpochResult], sampler: SamplerConfig
    ) -> tuple[np.ndarray, list[dict[str, float]]]:
        values, parts = zip(*(faulty(result, sampler.metric) for result in results), strict=True)
        return np.array(values)[:, None] - np.mean(values), list(parts)


@pytest.mark.parametrize(
    ("f1", "status", "text"),
    [
        (0.6, "non_finite", r"FloatingPointError: the reward of epoch 3 is nan \(\{'f1': 0.6\}\)"),
        (0.7, "exception", "ValueError: no reward above 0.65"),
        (0.8, "out_of_memory", "MemoryError: no room for a reward"),
        (0.9, "exception", "SystemExit: a reward ends the process"),
    ],
)
@pytest.mark.parametrize("reward", [reward_named(f"{__name__}:faulty"), FaultyTogether()])
def test_one_episode_whose_reward_fails_is_left_out_and_the_others_are_rewarded_as_without_it(
    reward, f1: float, status: str, text: str
) -> None:
    sampler = SamplerConfig(k=3)
    good = [report(0, 0.2), report(2, 0.4)]
    first, failed, third = with_valid_rewards([good[0], report(1, f1), good[1]], reward, sampler)
    assert [first, third] == with_valid_rewards(good, reward, sampler)
    assert (failed.status, failed.valid, failed.result, failed.retries) == (status, False, None, 1)
    assert (failed.counts_C.tolist(), failed.actions_C.tolist(), failed.num_clamped) == ([0, 2], [0, 2], 1)
    assert math.isnan(failed.reward)
    assert "Traceback" in failed.traceback
    assert re.search(text, failed.traceback)


@pytest.mark.parametrize("name", REWARDS)
def test_a_metric_that_is_not_a_number_fails_its_own_episode_alone(name: str) -> None:
    sampler = SamplerConfig(k=3, reward=name)
    good = [report(0, 0.2), report(2, 0.4)]
    first, failed, third = with_valid_rewards([good[0], report(1, math.nan), good[1]], REWARDS[name], sampler)
    assert failed.status == "non_finite"
    assert [first, third] == with_valid_rewards(good, REWARDS[name], sampler)
    assert np.isfinite([first.reward, third.reward]).all()


class Ratio:
    """A user's reward that divides by the sum of the others, which may be 0."""

    def __call__(self, result: EpochResult, metric: str) -> tuple[float, dict[str, float]]:
        return result.metrics[metric], {}

    def together(
        self, results: list[EpochResult], sampler: SamplerConfig
    ) -> tuple[np.ndarray, list[dict[str, float]]]:
        values_K = np.array([result.metrics[sampler.metric] for result in results])
        with np.errstate(divide="ignore"):
            return (values_K / (values_K.sum() - values_K))[:, None], [{} for _ in results]


def test_a_reward_that_is_finite_only_alone_fails_its_episode() -> None:
    first, second = with_valid_rewards([report(0, 0.0), report(1, 0.5)], Ratio(), SamplerConfig(k=2))
    assert (first.status, first.reward) == ("ok", 0.0)
    assert (second.status, second.valid, second.retries) == ("non_finite", False, 1)
    assert "the reward of epoch 3 among the other episodes is inf" in second.traceback


def test_an_epoch_without_a_valid_episode_is_not_rewarded() -> None:
    failed = with_valid_rewards(
        [report(0, 0.6), report(1, 0.7)], reward_named(f"{__name__}:faulty"), SamplerConfig(k=2)
    )
    assert [each.status for each in failed] == ["non_finite", "exception"]
    assert with_valid_rewards(failed, REWARDS["rank"], SamplerConfig(k=2)) == failed


def test_a_fault_that_no_episode_has_alone_is_raised_as_it_is() -> None:
    sampler = SamplerConfig(k=2, reward="per_class", signal="recall")
    with pytest.raises(UserError, match=r"^sampler.signal 'recall' is unknown: use one of log_likelihood$"):
        with_valid_rewards([report(0, 0.2), report(1, 0.4)], REWARDS["per_class"], sampler)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FloatingPointError(), "non_finite"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (RuntimeError(), "exception"),
        (SystemExit(1), "exception"),
    ],
)
def test_the_status_follows_from_the_error(error: BaseException, status: str) -> None:
    assert status_of(error) == status


LUCKY = 0.99
CALLS: list[float] = []


class LuckyTrainer(TrivialTrainer):
    """Episode 1 of the first epoch has the best metric."""

    def train_epoch(self, incumbent: Incumbent, counts_C: Int64, *, episode_index: int) -> EpochResult:
        result = super().train_epoch(incumbent, counts_C, episode_index=episode_index)
        lucky = (incumbent.epoch, episode_index) == (0, 1)
        return dataclasses.replace(result, metrics={**result.metrics, "f1": LUCKY}) if lucky else result


def nan_for_the_lucky(result: EpochResult, metric: str) -> tuple[float, dict[str, float]]:
    value = result.metrics[metric]
    CALLS.append(value)
    return math.nan if value == LUCKY else value, {metric: value}


@pytest.mark.medium
def test_the_best_episode_cannot_win_without_a_finite_reward_and_rewards_are_computed_once(
    ray_session: None,
) -> None:
    from cluster import RLCASConfig

    algorithm = (
        RLCASConfig()
        .training(k=2, epochs=3, reward=f"{__name__}:nan_for_the_lucky")
        .episodes(trainer_factory=LuckyTrainer, num_classes=NUM_CLASSES, episode_runner="in_process")
        .build_algo()
    )
    try:
        algorithm.train()
        assert [report.status for report in algorithm.record.reports] == ["ok", "non_finite"]
        assert (algorithm.record.winner, algorithm.best.epoch) == (0, 1)
        assert algorithm.best.result.metrics["f1"] < LUCKY
        CALLS.clear()
        algorithm.train()
        assert [report.reward for report in algorithm.record.reports] == CALLS, "once an episode"
    finally:
        algorithm.stop()
