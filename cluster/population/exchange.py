"""How the members of a population exchange after an epoch, and the actions that it begins with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from rlcas.batches.budget import num_moving
from rlcas.batches.composition import ACTIONS, KEEP
from rlcas.reinforce import draw_actions
from rlcas.seeding import rng_for
from rlcas.types import Float64, Int64

Member = TypeVar("Member")


def uniform(num_classes: int) -> Float64:
    """Return [C, 3]: the probabilities that a population moves by."""
    return np.full((num_classes, len(ACTIONS)), 1 / len(ACTIONS))


def first_actions(num_members: int, num_classes: int, seed: int) -> list[Int64]:
    """Return [K] times [C]: each member acts before the first epoch, as K episodes of uniform agents would."""
    return [
        draw_actions(uniform(num_classes), rng_for(seed, "actions", 1, member)) for member in range(num_members)
    ]


def exchanged(
    members: Sequence[Member], keys_K: Sequence[tuple[float, float]], num_classes: int, seed: int
) -> tuple[list[Member], list[Int64]]:
    """Return each member's next parent and actions: the worst quarter move from the best, the others keep.

    The rule and its draws are those of Tune's PopulationBasedTraining (Jaderberg et al. 2017) after every epoch.

    Args:
        members: the trained members.
        keys_K: `rlcas.training.fit.selection_key` of each; of equal ones the lower index is the better.
        num_classes: C.
        seed: of the draws.
    """
    number = num_moving(len(members))
    worst_first = sorted(range(len(members)), key=lambda member: (keys_K[member], -member))
    parents, actions_KC = list(members), [np.full(num_classes, KEEP) for _ in members]
    rng = random.Random(seed)  # Python's, to make the draws of Tune's scheduler
    for member in worst_first[:number]:
        parents[member] = members[rng.choice(worst_first[-number:])]
        actions_KC[member] = np.array(rng.choices(range(len(ACTIONS)), k=num_classes))
    return parents, actions_KC
