"""A population's members one after another in this process, by the rule of Tune's scheduler and to the same bits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cluster.episodes.episode import Episodes, TrainerFactory
from cluster.episodes.selection import EpisodeError
from cluster.population.epochs import PopulationEpochs, first_places
from rlcas.batches.budget import num_moving
from rlcas.batches.composition import ACTIONS, KEEP, initial_counts
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.devices import torch_threads
from rlcas.seeding import seed_for
from rlcas.training.fit import selection_key
from rlcas.types import EpochRecord, Incumbent, Int64


def train_population_in_process(
    trainer_factory: TrainerFactory,
    sampler: SamplerConfig,
    cluster: ClusterConfig,
    *,
    num_classes: int,
    seed: int,
    folder: Path,
    tell: Callable[[EpochRecord], None],
) -> Incumbent:
    """Do what `cluster.population.tune_runner.train_population` does without Ray; `folder` is not needed.

    Raises:
        EpisodeError: a member failed; the text holds its traceback.
    """
    threads = cluster.concrete(sampler.k).threads_per_episode
    assert threads is not None, "the settings are concrete"
    episodes, epochs = Episodes(trainer_factory, sampler), PopulationEpochs(sampler, num_classes, tell)
    members = [episodes.initial(initial_counts(sampler, num_classes))] * sampler.k
    actions_KC = [np.array(place.actions) for place in first_places(sampler.k, num_classes, seed)]
    for epoch in range(1, sampler.epochs + 1):
        with torch_threads(threads):
            outcomes = [
                episodes.outcome(parent, actions_C, epoch, member)
                for member, (parent, actions_C) in enumerate(zip(members, actions_KC, strict=True))
            ]
        for report, left in outcomes:
            if left is None:
                raise EpisodeError(
                    f"epoch {epoch}: member {report.episode_index} of the population failed ({report.status})\n"
                    f"{report.traceback}"
                )
        members = [left for _, left in outcomes if left is not None]
        epochs.end([report for report, _ in outcomes], members.__getitem__)
        keys_K = [selection_key(report.result, sampler.metric) for report, _ in outcomes if report.result]
        members, actions_KC = exchanged(members, keys_K, num_classes, seed_for(seed, "population", epoch))
    return epochs.best


def exchanged(
    members: Sequence[Incumbent], keys_K: Sequence[tuple[float, float]], num_classes: int, seed: int
) -> tuple[list[Incumbent], list[Int64]]:
    """Return what each member goes on from, and its actions: the worst quarter move from the best, the others keep.

    Args:
        members: what each left.
        keys_K: `rlcas.training.fit.selection_key` of each; of equal ones the lower index is the better.
        num_classes: C.
        seed: where the draws come from.
    """
    number = num_moving(len(members))
    by_score = sorted(range(len(members)), key=lambda member: (keys_K[member], -member))
    parents, actions_KC = list(members), [np.full(num_classes, KEEP) for _ in members]
    rng = random.Random(seed)
    for member in by_score[:number]:
        parents[member] = members[rng.choice(by_score[-number:])]
        actions_KC[member] = np.array(rng.choices(range(len(ACTIONS)), k=num_classes))
    return parents, actions_KC
