"""How many epochs fit into a budget of images when the composition changes from epoch to epoch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from rlcas.batches.composition import ACTIONS, apply_actions, initial_counts
from rlcas.config import POPULATION, SamplerConfig
from rlcas.types import Float64

MOVING_SHARE = 0.25
"""Share of a population's members that move after an epoch: the default of Tune's scheduler."""


def num_moving(num_members: int) -> int:
    """Return how many members of a population move after an epoch: a quarter, rounded up, but no more than half."""
    # As in Tune's PopulationBasedTraining: as many of the best are copied, and nobody is in both groups.
    return min(int(np.ceil(MOVING_SHARE * num_members)), num_members // 2)


def expected_added(sampler: SamplerConfig, num_classes: int) -> Iterator[float]:
    """Yield the images that are expected to be added to a mini-batch in epochs 1, 2, and so on.

    Agents are assumed to choose each action with probability 1/3, as they do before they have learnt: counts are
    clamped at 0, so that a random walk from small counts drifts upwards. A population's members are assumed to be
    equally good: all act before the first epoch, later the share that moves. Constant agents stay at the initial
    counts.
    """
    if sampler.agents == "constant":
        # Endless: the lines below are for the other agents only.
        yield from itertools.repeat(float(initial_counts(sampler, num_classes).sum()))
    acting = num_moving(sampler.k) / sampler.k if sampler.agents == POPULATION else 1.0
    walks = [
        expected_count(int(count), step=sampler.action_step, max_count=sampler.max_count, acting=acting)
        for count in initial_counts(sampler, num_classes)
    ]
    yield from map(sum, zip(*walks, strict=True))


def expected_count(initial: int, *, step: int, max_count: int, acting: float = 1.0) -> Iterator[float]:
    """Yield a class's expected count in epochs 1, 2, … of a uniform walk, exactly: by its Markov chain.

    Args:
        initial: the count before the first action, which comes before the first epoch.
        step: what an action adds or takes away.
        max_count: counts are clamped to [0, max_count].
        acting: the probability of an action before each later epoch; otherwise the count stays.
    """
    counts_S = np.arange(max_count + 1)
    walk_SS = _uniform_walk(step, max_count)
    # The first action comes before the first epoch, so the walk starts one step after `initial`.
    chances_S = walk_SS[initial]
    while True:
        yield float(chances_S @ counts_S)
        chances_S = (1 - acting) * chances_S + acting * (chances_S @ walk_SS)


def epochs_within(
    budget_images: float, num_images: int, added: Iterable[float], *, at_most: bool = False
) -> int:
    """Return the number of epochs, at least 1, whose images come nearest to a budget; of two as near, the fewer.

    Args:
        budget_images: the budget.
        num_images: N, the real images of each epoch.
        added: synthetic images of epochs 1, 2, …; endless.
        at_most: return the largest number of epochs that does not exceed the budget instead.

    Raises:
        AssertionError: `added` ended before the budget was reached.
    """
    seen = 0.0
    for epoch, of_epoch in enumerate(added, start=1):
        before, seen = seen, seen + num_images + of_epoch
        if seen > budget_images:
            nearer = not at_most and seen - budget_images < budget_images - before
            return max(1, epoch if nearer else epoch - 1)
    raise AssertionError("`added` must be endless")


def _uniform_walk(step: int, max_count: int) -> Float64:
    """Return [S, S]: the probability of each count after an action, from each count 0, 1, …, max_count."""
    walk_SS = np.zeros((max_count + 1, max_count + 1))
    counts_S = np.arange(max_count + 1)
    for action in range(len(ACTIONS)):
        after_S = apply_actions(counts_S, np.full_like(counts_S, action), step=step, max_count=max_count)
        # += over the actions, because clamped ones reach the same count; within an action the cells differ.
        walk_SS[counts_S, after_S] += 1 / len(ACTIONS)
    return walk_SS
