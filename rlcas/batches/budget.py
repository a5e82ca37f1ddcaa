"""How many epochs fit into a budget of images when the composition changes from epoch to epoch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import reduce

import numpy as np

from rlcas.batches.composition import ACTIONS, apply_actions, initial_counts, shows_synthetic
from rlcas.config import DOSING, POPULATION, SamplerConfig
from rlcas.types import Float64, Int64

MOVING_SHARE = 0.25
"""Share of a population's members that move after an epoch: the default of Tune's scheduler."""


def num_moving(num_members: int) -> int:
    """Return how many members of a population move after an epoch: a quarter, rounded up, but no more than half."""
    # As in Tune's PopulationBasedTraining: as many of the best are copied, and nobody is in both groups.
    return min(int(np.ceil(MOVING_SHARE * num_members)), num_members // 2)


def num_perturbed(sampler: SamplerConfig, num_classes: int) -> int:
    """Return how many classes agents dose perturb in an epoch: the share `sampler.exploration`, one at least."""
    assert sampler.exploration is not None, "agents dose have it"
    # One at least: without a perturbation nothing can be learnt.
    return max(1, round(sampler.exploration * num_classes))


def expected_added(sampler: SamplerConfig, num_classes: int) -> Iterator[float]:
    """Yield the images that are expected to be added to a mini-batch in epochs 1, 2, and so on.

    Agents are assumed to choose each action with probability 1/3, as they do before they have learnt: counts are
    clamped at 0, so that a random walk from small counts drifts upwards. A population's members are assumed to be
    equally good: all act before the first epoch, later the share that moves. Constant agents stay at the initial
    counts. Agents dose are assumed to keep their first dose, around which they perturb some classes in every epoch,
    up or down with the same chance. In epochs of real images alone there are none, and the walk waits.
    """
    walks = _walks(sampler, num_classes)
    for epoch in itertools.count(1):
        yield next(walks) if shows_synthetic(sampler, epoch) else 0.0


def _walks(sampler: SamplerConfig, num_classes: int) -> Iterator[float]:
    """Yield what is added in the first, second, … epoch in which agents act."""
    initial = initial_counts(sampler, num_classes)
    if sampler.agents == "constant":
        return itertools.repeat(float(initial.sum()))
    if sampler.agents in DOSING:
        return itertools.repeat(_around(initial, sampler))
    acting = num_moving(sampler.k) / sampler.k if sampler.agents == POPULATION else 1.0
    # The mean of the K compositions is handed over, or that of one.
    averaged = 1 if sampler.handover in (None, "best") else sampler.k
    step, max_count = sampler.action_step, sampler.max_count
    walks = [
        expected_count(int(count), step=step, max_count=max_count, acting=acting, averaged=averaged)
        for count in initial
    ]
    return map(sum, zip(*walks, strict=True))


def _around(dose_C: Int64, sampler: SamplerConfig) -> float:
    """Return the expected sum of counts that are perturbed around a dose."""
    # A step below 0 or above the most is clamped: as good as not perturbed, which it is then.
    up_C, down_C = (
        apply_actions(
            dose_C, np.full_like(dose_C, action), step=sampler.action_step, max_count=sampler.max_count
        )
        for action in (len(ACTIONS) - 1, 0)
    )
    share = num_perturbed(sampler, len(dose_C)) / len(dose_C)
    return float((share * (up_C + down_C) / 2 + (1 - share) * dose_C).sum())


def expected_count(
    initial: int, *, step: int, max_count: int, acting: float = 1.0, averaged: int = 1
) -> Iterator[float]:
    """Yield a class's expected count in epochs 1, 2, … of a uniform walk, exactly: by its Markov chain.

    Args:
        initial: the count before the first action, which comes before the first epoch.
        step: what an action adds or takes away.
        max_count: counts are clamped to [0, max_count].
        acting: the probability of an action before each later epoch; otherwise the count stays.
        averaged: actions whose mean count, in whole images, the next epoch's actions change.
    """
    counts_S = np.arange(max_count + 1)
    walk_SS = _uniform_walk(step, max_count)
    next_SS = walk_SS if averaged == 1 else _means(walk_SS, averaged)
    base_S = np.eye(max_count + 1)[initial]
    # The first action comes before the first epoch, whatever `acting` is.
    chance = 1.0
    while True:
        chances_S = (1 - chance) * base_S + chance * (base_S @ walk_SS)
        yield float(chances_S @ counts_S)
        base_S = (1 - chance) * base_S + chance * (base_S @ next_SS)
        chance = acting


def _means(walk_SS: Float64, number: int) -> Float64:
    """Return [S, S]: the probability of each mean, in whole images, of `number` independent counts."""
    sums = np.arange((len(walk_SS) - 1) * number + 1)
    means = np.rint(sums / number).astype(np.int64)
    return np.stack(
        [
            np.bincount(means, weights=reduce(np.convolve, [row_S] * number), minlength=len(walk_SS))
            for row_S in walk_SS
        ]
    )


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
