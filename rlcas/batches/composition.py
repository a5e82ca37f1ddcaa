"""Which images go into which mini-batch: counts per class, shuffled cycles of the pool, an epoch's plan."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlcas.config import RunConfig, SamplerConfig
from rlcas.errors import UserError
from rlcas.seeding import rng_for
from rlcas.types import WHOLE, EpisodeTask, Float64, Int64, Share

ACTIONS = np.array([-1, 0, 1], dtype=np.int64)
"""The change of a count by action 0, 1 and 2, in units of sampler.action_step."""
KEEP = 1
"""The index of an action that changes nothing."""


def apply_actions(counts_C: Int64, actions_C: Int64, *, step: int, max_count: int) -> Int64:
    """Return [C] int64: the composition after one action of each agent.

    Args:
        counts_C: [C] the composition before.
        actions_C: [C] indices into `ACTIONS`.
        step: images by which an action changes a count.
        max_count: counts are clamped to [0, max_count].
    """
    return np.clip(counts_C + step * ACTIONS[actions_C], 0, max_count)


def shows_synthetic(sampler: SamplerConfig, epoch: int) -> bool:
    """Return whether synthetic images are shown in `epoch` (from 1).

    They are not in the shares of the epochs that `sampler.real_first` and `sampler.real_last` keep for real images.
    """
    first, last = round(sampler.real_first * sampler.epochs), round(sampler.real_last * sampler.epochs)
    return first < epoch and not sampler.epochs - last < epoch <= sampler.epochs


def composition_of(sampler: SamplerConfig, epoch: int, base_C: Int64, actions_C: Int64) -> Int64:
    """Return [C] int64: the composition of an episode of `epoch` (from 1); zeros in an epoch of real images alone.

    Args:
        sampler: the sampler's settings.
        epoch: from 1.
        base_C: [C] the composition that the actions change.
        actions_C: [C] indices into `ACTIONS`.
    """
    if not shows_synthetic(sampler, epoch):
        return np.zeros_like(base_C)
    return apply_actions(base_C, actions_C, step=sampler.action_step, max_count=sampler.max_count)


def check_divisible(sampler: SamplerConfig, num_steps: int) -> None:
    """Check that the K episodes can divide an epoch among them.

    Raises:
        UserError: it has fewer mini-batches than that.
    """
    if undivided := undivided_epoch(sampler, num_steps):
        raise UserError(undivided)


def undivided_epoch(sampler: SamplerConfig, num_steps: int) -> str:
    """Return why the K episodes cannot divide an epoch of `num_steps` among them, and the fix; nothing if they can."""
    if sampler.episode != "share" or sampler.k <= num_steps:
        return ""
    return (
        f"sampler.episode share: sampler.k {sampler.k} episodes cannot divide the {num_steps} mini-batches of an "
        "epoch: lower sampler.k or classifier.batch_size"
    )


def mean_composition(counts_KC: Sequence[Int64]) -> Int64:
    """Return [C] int64: the mean of compositions in whole images, halves to the even number."""
    return np.rint(np.mean(counts_KC, axis=0)).astype(np.int64)


def initial_counts(sampler: SamplerConfig, num_classes: int) -> Int64:
    """Return [C] int64: the composition before the first action.

    Raises:
        UserError: `sampler.initial_count` has counts for another number of classes.
    """
    counts = sampler.initial_count
    if isinstance(counts, int):
        return np.full(num_classes, counts, dtype=np.int64)
    if len(counts) != num_classes:
        raise UserError(
            f"sampler.initial_count {','.join(map(str, counts))} has {len(counts)} counts, but the data has "
            f"{num_classes} classes: give one count for all, or {num_classes} with commas"
        )
    return np.array(counts, dtype=np.int64)


def evenly(total: int, class_counts_C: Int64, most_C: Int64) -> Int64:
    """Return [C] int64 that sum to `total`: as many of each class that may have some, one more of the rarest.

    Args:
        total: images to divide; fewer where `most_C` leaves no room for them.
        class_counts_C: [C] real images, by which classes are rare; of equally rare ones the later comes first.
        most_C: [C] the most that a class may get.
    """
    counts_C = np.zeros(len(class_counts_C), np.int64)
    rarest_first = np.argsort(class_counts_C[::-1], kind="stable")
    for c in itertools.cycle(len(counts_C) - 1 - rarest_first):
        if counts_C.sum() == min(total, most_C.sum()):
            return counts_C
        counts_C[c] += counts_C[c] < most_C[c]
    return counts_C


def first_composition(
    config: RunConfig, class_counts_C: Int64, trusted_C: NDArray[np.bool_] | None = None
) -> Int64:
    """Return [C] int64: the composition before the first action, of `sampler.start_share` or `initial_count`.

    Args:
        config: the run's settings.
        class_counts_C: [C] real training images.
        trusted_C: [C] which classes may have synthetic images of `start_share`. None: all.

    Raises:
        UserError: `sampler.initial_count` has counts for another number of classes.
    """
    sampler, batch_size, num_classes = config.sampler, config.classifier.batch_size, len(class_counts_C)
    if not sampler.start_share:
        return initial_counts(sampler, num_classes)
    trusted_C = np.ones(num_classes, bool) if trusted_C is None else trusted_C
    return evenly(round(sampler.start_share * batch_size), class_counts_C, trusted_C * sampler.max_count)


def replaces_real(config: RunConfig, num_classes: int) -> bool:
    """Return whether synthetic images replace real ones in a mini-batch, by `sampler.batch_mode`."""
    mode = config.sampler.batch_mode
    fits = num_classes * config.sampler.max_count <= config.classifier.batch_size
    return mode == "fixed_total" or (mode == "auto" and fits)


def check_composition(config: RunConfig, num_classes: int) -> None:
    """Check that the settings of the composition fit C classes, before anything starts.

    Raises:
        UserError: there are initial counts for another number of classes, or a batch of fixed size may overflow.
    """
    initial_counts(config.sampler, num_classes)
    most, batch_size = num_classes * config.sampler.max_count, config.classifier.batch_size
    if config.sampler.batch_mode == "fixed_total" and most > batch_size:
        room = batch_size // num_classes
        lower = f"lower sampler.max_count to {room}, " if room else ""
        raise UserError(
            f"sampler.batch_mode fixed_total: {num_classes} classes x sampler.max_count {config.sampler.max_count} "
            f"= {most} > classifier.batch_size {batch_size}: {lower}raise classifier.batch_size to {most}, or append"
        )


def clamped_in(sampler: SamplerConfig, task: EpisodeTask) -> int:
    """Return how many agents' actions are clamped in an episode."""
    if not shows_synthetic(sampler, task.epoch):
        return 0
    counts_C = composition_of(sampler, task.epoch, task.base_C, task.actions_C)
    return num_clamped(task.base_C, counts_C, task.actions_C, sampler.action_step)


def num_clamped(parent_C: Int64, counts_C: Int64, actions_C: Int64, step: int) -> int:
    """Return how many agents' actions were clamped at 0 or at the maximum.

    Args:
        parent_C: [C] the composition before the actions.
        counts_C: [C] the composition after them.
        actions_C: [C] indices into `ACTIONS`.
        step: images by which an action changes a count.
    """
    return int((counts_C != parent_C + step * ACTIONS[actions_C]).sum())


@dataclass(frozen=True, slots=True)
class PoolCycles:
    """An endless sequence of pool indices for each class, in cycles as long as the class.

    Cycle q of class c depends on the seed path (c, q) alone, so that the whole state of the sampler is one position
    in each class.
    """

    class_sizes_C: Int64
    seed: int
    with_replacement: bool = False
    """A cycle is a permutation of the class, or with replacement as many independent draws."""

    def take(self, class_id: int, position: int, num_images: int) -> Int64:
        """Return [num_images] int64: the pool indices at positions position, position + 1, … of the class."""
        # Before the divisions: a class without images has the size 0.
        if num_images == 0:
            return np.empty(0, np.int64)
        size = int(self.class_sizes_C[class_id])
        first, last = position // size, (position + num_images - 1) // size
        # Cycles are drawn again at every call, so that a position is all the state there is.
        cycles = [self._cycle(class_id, cycle) for cycle in range(first, last + 1)]
        start = position - first * size
        return np.concatenate(cycles)[start : start + num_images]

    def _cycle(self, class_id: int, cycle: int) -> Int64:
        rng, size = rng_for(self.seed, "pool", class_id, cycle), int(self.class_sizes_C[class_id])
        return rng.integers(size, size=size) if self.with_replacement else rng.permutation(size)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlan:
    """The batches of one epoch or of a share of it, by index."""

    epoch_batches: list[Int64]
    """Indices of training images, an array for each batch of the whole epoch."""
    steps: range
    """Which of these batches are trained on."""
    synthetic_by_class: list[Int64]
    """[C] arrays [num_steps, s_c] of pool indices: row `step` is appended to batch `step`."""
    positions_C: Int64
    """[C] int64: positions in the pool's cycles after these batches."""

    @property
    def real_batches(self) -> list[Int64]:
        """Return the indices of training images in the batches that are trained on."""
        return self.epoch_batches[self.steps.start : self.steps.stop]

    @property
    def counts_C(self) -> Int64:
        """Return [C] int64: synthetic images of each class in every batch."""
        return np.array([indices.shape[1] for indices in self.synthetic_by_class], dtype=np.int64)

    def shown_C(self, labels_N: Int64, synthetic_weight: float = 1.0) -> Int64 | Float64:
        """Return [C]: images of each class in an epoch of this composition; int64 if all count alike.

        Args:
            labels_N: [N] labels of the training images.
            synthetic_weight: what a synthetic image counts.
        """
        # Of the whole epoch: a share of it may by chance have no image of a rare class.
        real = labels_N[np.concatenate(self.epoch_batches)]
        real_C = np.bincount(real, minlength=len(self.counts_C))
        shown_C = len(self.epoch_batches) * self.counts_C
        if synthetic_weight == 1:
            return real_C + shown_C
        return real_C + np.float64(synthetic_weight) * shown_C.astype(np.float64)

    @property
    def num_images(self) -> int:
        """Return the images of the epoch, real and synthetic."""
        real = sum(len(batch) for batch in self.real_batches)
        return real + sum(indices.size for indices in self.synthetic_by_class)


def epoch_plan(
    order_N: Int64,
    batch_size: int,
    counts_C: Int64,
    positions_C: Int64,
    cycles: PoolCycles,
    *,
    fixed_total: bool = False,
    share: Share = WHOLE,
) -> EpochPlan:
    """Return the plan of one pass over the training images; the number of batches does not depend on the composition.

    Args:
        order_N: [N] a random order of the training images.
        batch_size: real images of a batch, or all its images under `fixed_total`.
        counts_C: [C] synthetic images of each class in every batch.
        positions_C: [C] positions in the pool's cycles before the epoch.
        cycles: the order of the pool's images.
        fixed_total: the synthetic images replace the last real ones of each batch, instead of being added to them. A
            last batch that is smaller than the composition then has synthetic images only.
        share: which of the batches are planned.
    """
    epoch_batches = np.split(order_N, batch_starts(len(order_N), batch_size)[1:])
    if fixed_total:
        num_synthetic = int(counts_C.sum())
        # The last of a random order are a random choice, and those that stay keep their places.
        epoch_batches = [batch[: max(0, len(batch) - num_synthetic)] for batch in epoch_batches]
    steps = share.steps(len(epoch_batches))
    num_steps = len(steps)
    synthetic_by_class = [
        cycles.take(c, int(positions_C[c]), num_steps * int(count)).reshape(num_steps, int(count))
        for c, count in enumerate(counts_C)
    ]
    return EpochPlan(
        epoch_batches=epoch_batches,
        steps=steps,
        synthetic_by_class=synthetic_by_class,
        positions_C=positions_C + num_steps * counts_C,
    )


def batch_starts(num_images: int, batch_size: int) -> list[int]:
    """Return the index of each batch's first image; the last batch may be short.

    A last batch of one image is merged into the one before: BatchNorm cannot be trained on one value a channel.
    """
    starts = list(range(0, num_images, batch_size))
    return starts[:-1] if len(starts) > 1 and num_images - starts[-1] == 1 else starts
