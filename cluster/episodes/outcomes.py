"""What becomes of an episode: its status where it fails, and its reward where it does not."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

import numpy as np
import torch

from rlcas.batches.composition import clamped_in, composition_of
from rlcas.config import SamplerConfig
from rlcas.rewards import Reward, reward_alone, with_rewards
from rlcas.types import EpisodeReport, EpisodeTask, Status


def failed_report(task: EpisodeTask, sampler: SamplerConfig) -> EpisodeReport:
    """Return the report of an episode whose process died; it cannot win."""
    return EpisodeReport(
        epoch=task.epoch,
        episode_index=task.episode_index,
        status="died",
        actions_C=task.actions_C,
        counts_C=composition_of(sampler, task.epoch, task.base_C, task.actions_C),
        num_clamped=clamped_in(sampler, task),
    )


def status_of(error: BaseException) -> Status:
    """Return the outcome that `error` is: of memory, of numbers, or any other."""
    # torch.OutOfMemoryError is for GPUs; for want of main memory torch raises a RuntimeError with this text.
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return "out_of_memory"
    return "non_finite" if isinstance(error, FloatingPointError) else "exception"


def with_valid_rewards(
    reports: Sequence[EpisodeReport], reward: Reward, sampler: SamplerConfig
) -> list[EpisodeReport]:
    """Return an epoch's reports with the rewards that its valid episodes have together.

    An episode whose own reward raises or is not finite fails here, before a winner is chosen, and the others are
    compared without it.
    """
    try:
        together = with_rewards(reports, reward, sampler)
    except (Exception, SystemExit):
        pass  # one episode's fault is found below; any other is raised again by the second try
    else:
        if all(_finite(report) for report in together):
            return together
    valid_alone = [_checked(report, reward, sampler.metric) for report in reports]
    together = with_rewards(valid_alone, reward, sampler)
    return [report if _finite(report) else _failed(report, _not_finite(report)) for report in together]


def _finite(report: EpisodeReport) -> bool:
    rewards = report.reward if report.rewards_C is None else report.rewards_C
    return not report.valid or bool(np.isfinite(rewards).all())


def _checked(report: EpisodeReport, reward: Reward, metric: str) -> EpisodeReport:
    """Return the report, as that of a failed episode where its reward alone raises or is not finite."""
    if not report.valid:
        return report
    assert report.result is not None
    try:
        reward_alone(reward, report.result, metric, report.epoch)
    except (Exception, SystemExit) as error:
        return _failed(report, error)
    return report


def _not_finite(report: EpisodeReport) -> FloatingPointError:
    return FloatingPointError(f"the reward of epoch {report.epoch} among the other episodes is {report.reward}")


def _failed(report: EpisodeReport, error: BaseException) -> EpisodeReport:
    """Return the report of an episode that trained and whose reward failed; it cannot win."""
    return EpisodeReport(
        epoch=report.epoch,
        episode_index=report.episode_index,
        status=status_of(error),
        actions_C=report.actions_C,
        counts_C=report.counts_C,
        num_clamped=report.num_clamped,
        traceback="".join(traceback.format_exception(error)),
        retries=report.retries,
    )
