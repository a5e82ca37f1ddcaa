"""What an epoch hands over to the next: the best episode, the mean of all, or what the last of them in turn reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.episodes.runner import EpisodeRunner
from cluster.episodes.selection import choose
from rlcas.batches.composition import mean_composition, shows_synthetic
from rlcas.config import SamplerConfig
from rlcas.types import EpisodeReport, EpisodeTask, Int64


def describe_episodes(sampler: SamplerConfig) -> str:
    """Return in words how the episodes divide an epoch, and what they hand over."""
    workers = "in turn" if sampler.num_workers == 1 else f"on {sampler.num_workers} workers"
    if sampler.episode == "share":
        handed = "each starts from what the one before reached" if sampler.num_workers == 1 else "merged"
        return f"K={sampler.k} shares of an epoch {workers}, {handed}"
    return f"K={sampler.k} whole epochs {workers}, {'the best is kept' if sampler.handover == 'best' else 'merged'}"


def handover_in(sampler: SamplerConfig, epoch: int) -> str:
    """Return the handover of `epoch` (from 1): `sampler.handover`, but best before `sampler.merge_from`."""
    assert sampler.handover is not None, "the settings are concrete"
    return "best" if epoch < sampler.merge_from else sampler.handover


def by_worker(handover: str, tasks_K: Sequence[EpisodeTask]) -> list[list[EpisodeTask]]:
    """Return the episodes of each worker: one worker trains all in turn, or K workers train one each."""
    return [list(tasks_K)] if handover == "in_turn" else [[task] for task in tasks_K]


def winner_of(handover: str, reports: list[EpisodeReport], metric: str) -> int | None:
    """Return the index of the episode that trained the next incumbent; None where it is the mean of several.

    Raises:
        EpisodeError: none is valid; the text holds the workers' tracebacks.
    """
    best = choose(reports, metric)
    if handover == "best":
        return best
    valid = [report.episode_index for report in reports if report.valid]
    return valid[-1] if handover == "in_turn" or len(valid) == 1 else None


def reference_to_keep(
    handover: str, reports: list[EpisodeReport], references_W: Sequence[Any], runner: EpisodeRunner, metric: str
) -> Any:
    """Return a reference to the next incumbent.

    Args:
        handover: of the epoch.
        reports: the K reports, rewarded.
        references_W: what each worker trained.
        runner: computes the mean of several.
        metric: the validation metric by which the best is chosen.

    Raises:
        EpisodeError: none is valid; the text holds the workers' tracebacks.
    """
    winner = winner_of(handover, reports, metric)
    if handover == "in_turn":
        return references_W[0]
    if winner is not None:
        return references_W[winner]
    return runner.merge([references_W[report.episode_index] for report in reports if report.valid])


def composition_after(
    sampler: SamplerConfig, reports: list[EpisodeReport], winner: int | None, base_C: Int64
) -> Int64:
    """Return [C] int64: the composition that the next epoch's actions change.

    It is the winner's under handover best, else the mean of the valid episodes'. An epoch of real images alone leaves
    it as it is.

    Args:
        sampler: the sampler's settings.
        reports: the epoch's.
        winner: as `winner_of`.
        base_C: [C], the composition that this epoch's actions changed.
    """
    epoch = reports[0].epoch
    if not shows_synthetic(sampler, epoch):
        return base_C
    if handover_in(sampler, epoch) == "best":
        assert winner is not None, "the best is one"
        return reports[winner].counts_C
    return mean_composition([report.counts_C for report in reports if report.valid])
