"""A population's epochs: where each member stands, and the record of what all reported."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cluster.episodes.selection import better, choose
from rlcas.batches.composition import ACTIONS
from rlcas.config import SamplerConfig
from rlcas.reinforce import draw_actions
from rlcas.rewards import with_rewards
from rlcas.seeding import rng_for
from rlcas.types import EpisodeReport, EpochRecord, Float64, Incumbent


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member stands: at `epoch` it takes over what `parent` left and acts by `actions`, later it keeps."""

    member: int
    epoch: int
    parent: int
    actions: tuple[int, ...]


def first_places(num_members: int, num_classes: int, seed: int) -> list[Place]:
    """Return the members' places before the first epoch: each acts once, as K episodes of uniform agents would."""
    return [
        Place(
            member=j,
            epoch=0,
            parent=j,
            actions=tuple(draw_actions(uniform(num_classes), rng_for(seed, "actions", 1, j)).tolist()),
        )
        for j in range(num_members)
    ]


def uniform(num_classes: int) -> Float64:
    """Return [C, 3]: the probabilities that a population moves by."""
    return np.full((num_classes, len(ACTIONS)), 1 / len(ACTIONS))


class PopulationEpochs:
    """Makes an epoch's record of what the members report, and keeps the best classifier of all.

    Args:
        sampler: the sampler's settings.
        num_classes: C.
        tell: is given every epoch's record.
    """

    best: Incumbent
    """The best classifier on validation of all members and epochs so far."""

    def __init__(self, sampler: SamplerConfig, num_classes: int, tell: Callable[[EpochRecord], None]) -> None:
        self._sampler, self._tell = sampler, tell
        self._probabilities_C3 = uniform(num_classes)
        self._started = time.perf_counter()

    def end(self, reports: list[EpisodeReport], left_by_member: Callable[[int], Incumbent]) -> None:
        """Tell an epoch whose members are all done."""
        epoch, metric = reports[0].epoch, self._sampler.metric
        winner, reports = choose(reports, metric), with_rewards(reports, self._sampler)
        incumbent = left_by_member(winner)
        self.best = incumbent if epoch == 1 else better(self.best, incumbent, metric)
        assert self.best.result is not None
        started, self._started = self._started, time.perf_counter()
        self._tell(
            EpochRecord(
                epoch=epoch,
                reports=tuple(reports),
                winner=winner,
                baseline=0.0,
                probabilities_C3=self._probabilities_C3,
                best_metric=self.best.result.metrics[metric],
                best_epoch=self.best.epoch,
                seconds=self._started - started,
            )
        )
