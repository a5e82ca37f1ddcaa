"""Which images go into which mini-batch: counts per class, shuffled cycles of the pool, an epoch's plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlcas.seeding import rng_for
from rlcas.types import Int64

ACTIONS = np.array([-1, 0, 1], dtype=np.int64)
"""What the indices 0, 1 and 2 of an action stand for, in units of sampler.action_step."""


def apply_actions(counts_C: Int64, actions_C: Int64, *, step: int, max_count: int) -> Int64:
    """Return the composition after `actions_C` (indices 0, 1, 2), clamped to [0, max_count]."""
    return np.clip(counts_C + step * ACTIONS[actions_C], 0, max_count)


def num_clamped(parent_C: Int64, counts_C: Int64, actions_C: Int64, step: int) -> int:
    """Return how many agents' actions were cut at a limit on the way from `parent_C` to `counts_C`."""
    return int((counts_C != parent_C + step * ACTIONS[actions_C]).sum())


@dataclass(frozen=True, slots=True)
class PoolCycles:
    """An endless order of each class's pool: shuffled cycles, without replacement inside a cycle.

    Cycle q of class c is a permutation from the seed path (class, q) alone, so that the whole state of the
    sampler is one position a class.
    """

    class_sizes_C: Int64
    seed: int

    def take(self, class_id: int, position: int, num_images: int) -> Int64:
        """Return [num_images] int64: the pool indices at positions position, position + 1, … of the class."""
        if num_images == 0:
            return np.empty(0, np.int64)
        size = int(self.class_sizes_C[class_id])
        first, last = position // size, (position + num_images - 1) // size
        cycles = [self._cycle(class_id, cycle) for cycle in range(first, last + 1)]
        start = position - first * size
        return np.concatenate(cycles)[start : start + num_images]

    def _cycle(self, class_id: int, cycle: int) -> Int64:
        rng = rng_for(self.seed, "pool", class_id, cycle)
        return rng.permutation(int(self.class_sizes_C[class_id]))


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlan:
    """The batches of one epoch, by index."""

    real_batches: list[Int64]
    """Indices of training images, a batch each."""
    synthetic_by_class: list[Int64]
    """[C] arrays [num_steps, s_c] of pool indices: row `step` is appended to batch `step`."""
    positions_C: Int64
    """[C] int64: positions in the pool's cycles after the epoch."""

    @property
    def num_images(self) -> int:
        """Return the images of the epoch, real and synthetic."""
        real = sum(len(batch) for batch in self.real_batches)
        return real + sum(indices.size for indices in self.synthetic_by_class)


def epoch_plan(
    order_N: Int64, batch_size: int, counts_C: Int64, positions_C: Int64, cycles: PoolCycles
) -> EpochPlan:
    """Return the plan of one pass over `order_N`, with counts_C synthetic images appended to every batch.

    The number of batches does not depend on the composition.
    """
    real_batches = np.split(order_N, batch_starts(len(order_N), batch_size)[1:])
    num_steps = len(real_batches)
    synthetic_by_class = [
        cycles.take(c, int(positions_C[c]), num_steps * int(count)).reshape(num_steps, int(count))
        for c, count in enumerate(counts_C)
    ]
    return EpochPlan(
        real_batches=real_batches,
        synthetic_by_class=synthetic_by_class,
        positions_C=positions_C + num_steps * counts_C,
    )


def batch_starts(num_images: int, batch_size: int) -> list[int]:
    """Return where batches start; the last may be short.

    A last batch of a single image joins the one before: BatchNorm learns nothing from one image.
    """
    starts = list(range(0, num_images, batch_size))
    return starts[:-1] if len(starts) > 1 and num_images - starts[-1] == 1 else starts
