"""The mini-batches of an epoch: real and synthetic images, augmented and normalised on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlcas.batches.augment import Augment
from rlcas.batches.composition import (
    EpochPlan,
    PoolCycles,
    batch_starts,
    check_composition,
    epoch_plan,
    replaces_real,
)
from rlcas.batches.images import Normalisation, SyntheticImages, to_float
from rlcas.config import RunConfig
from rlcas.devices import as_tensor
from rlcas.errors import UserError
from rlcas.seeding import rng_for, seed_for
from rlcas.types import WHOLE, Float64, Incumbent, Int64, Share, SyntheticSource, TrainingData


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MiniBatch:
    """The B images of one training step, the real ones first."""

    views: tuple[Tensor, ...]
    """[B, C, H, W] float32 each, normalised: the same images, each view augmented anew."""
    labels_N: Tensor
    """[B] int64."""
    resampled: MiniBatch | None = None
    """A second batch of B real images, drawn independently, in as many views; None where the method needs none."""
    num_synthetic: int = 0
    """How many of the B images are synthetic: the last ones."""
    synthetic_weight: float = 1.0
    """w, the weight of a synthetic image in the loss (`sampler.synthetic_weight`)."""

    @property
    def images_NCHW(self) -> Tensor:
        """Return the first view."""
        return self.views[0]

    @property
    def num_real(self) -> int:
        """Return how many of the B images are real: the first ones."""
        return len(self.labels_N) - self.num_synthetic

    def weighted_mean(self, loss: Callable[[slice], Tensor]) -> Tensor:
        """Return (Σ_real l_i + w Σ_synthetic l_i) / (N_real + w N_synthetic).

        Args:
            loss: returns the mean of l_i over a slice of the images.
        """
        # One call where all images weigh alike: two means would add up to other bits.
        if self.synthetic_weight == 1 or not self.num_synthetic or not self.num_real:
            return loss(slice(None))
        weight = self.synthetic_weight * self.num_synthetic
        real, synthetic = loss(slice(self.num_real)), loss(slice(self.num_real, None))
        return (self.num_real * real + weight * synthetic) / (self.num_real + weight)


class BatchMaker:
    """Makes the batches of any epoch; every random draw has its own seed, so that no state carries over.

    Args:
        data: the training images; they stay on the device as uint8.
        pool: where synthetic images come from.
        config: the run's settings.
        device: where batches are made.
        num_views: augmentations of each image.
        resampling_power: q of a second batch, drawn with replacement with probability ~ n_c^-q. At 0 it takes the
            images from permutations instead, so that each comes equally often; None makes no second batch.

    Raises:
        UserError: the pool or the composition's settings do not fit the data.
    """

    def __init__(
        self,
        data: TrainingData,
        pool: SyntheticSource,
        config: RunConfig,
        device: torch.device,
        *,
        num_views: int = 1,
        resampling_power: float | None = None,
    ) -> None:
        _check_pool(pool, data)
        check_composition(config, data.num_classes)
        self.normalisation = Normalisation.of(data.train.images_NCHW)
        self.num_steps = len(batch_starts(len(data.train), config.classifier.batch_size))
        self._config = config
        self._replaces_real = replaces_real(config, data.num_classes)
        self._device = device
        # On a CPU these are the mapped files' own pages, which the K workers of a node share.
        self._images = as_tensor(data.train.images_NCHW, device)
        self._labels = as_tensor(data.train.labels_N, device)
        self._synthetic = SyntheticImages(pool, device)
        self._cycles = PoolCycles(
            pool.class_sizes_C,
            config.seed,
            with_replacement=config.sampler.draw_mode == "with_replacement",
        )
        self._augment = Augment(config.classifier.augment)
        self._num_views = num_views
        self._resamples = resampling_power is not None
        self._chances_N = _chances(data, resampling_power) if resampling_power else None  # None at 0 as well

    def plan(
        self,
        incumbent: Incumbent,
        counts_C: Int64,
        episode_index: int,
        *,
        epoch: int | None = None,
        share: Share = WHOLE,
    ) -> EpochPlan:
        """Return which images are in which batch of an epoch or of a share of it.

        Args:
            incumbent: what is trained.
            counts_C: [C], the composition.
            episode_index: j in 0..K-1.
            epoch: from 0. None: the one after the incumbent's.
            share: which of the epoch's batches are planned.
        """
        epoch = incumbent.epoch if epoch is None else epoch
        positions_C = incumbent.positions_C
        if self._config.sampler.handover == "merge":
            # All shares start alike: each goes on where the ones before it would be with its own composition.
            positions_C = positions_C + share.steps(self.num_steps).start * counts_C
        # The path names the epoch and (without common random numbers) the episode, never the composition.
        rng = rng_for(self._config.seed, "order", epoch, self._real_stream(episode_index))
        return epoch_plan(
            rng.permutation(len(self._labels)),
            self._config.classifier.batch_size,
            counts_C,
            positions_C,
            self._cycles,
            fixed_total=self._replaces_real,
            share=share,
        )

    def batches(self, plan: EpochPlan, epoch: int, episode_index: int) -> Iterator[MiniBatch]:
        """Yield the batch of each step.

        The order and augmentation of the real images do not depend on the composition, nor, under
        `sampler.common_random_numbers`, on the episode.
        """
        counts_C = plan.counts_C
        synthetic_labels = as_tensor(np.repeat(np.arange(len(counts_C)), counts_C), self._device)
        first = plan.steps.start
        synthetic_stream = 0 if self._divides_epochs else episode_index
        num_seen = sum(map(len, plan.epoch_batches[:first])) + first * int(counts_C.sum())
        for step, indices in zip(plan.steps, plan.real_batches, strict=True):
            real = as_tensor(indices, self._device)
            synthetic = self._synthetic.take([rows[step - first] for rows in plan.synthetic_by_class])
            # Real images first: a batch without synthetic images is, to the bit, the start of one with them.
            images = torch.cat([self._images[real], *synthetic])
            # Two streams, so that the draws of the real images do not depend on the number of synthetic ones.
            draws = [
                torch.cat(
                    [
                        self._draw(
                            len(real), "augment-real", epoch, step, self._real_stream(episode_index), *view
                        ),
                        self._draw(
                            len(synthetic_labels), "augment-synthetic", epoch, step, synthetic_stream, *view
                        ),
                    ]
                )
                for view in self._views()
            ]
            yield MiniBatch(
                views=self._augmented(images, draws),
                labels_N=torch.cat([self._labels[real], synthetic_labels]),
                resampled=self._resampled(num_seen, len(images), epoch, step, episode_index)
                if self._resamples
                else None,
                num_synthetic=len(synthetic_labels),
                synthetic_weight=self._config.sampler.synthetic_weight,
            )
            # A position in the epoch's permutations, which batches of any composition continue without a gap.
            num_seen += len(images)

    def _resampled(
        self, num_seen: int, num_images: int, epoch: int, step: int, episode_index: int
    ) -> MiniBatch:
        """Return the second batch of a step that comes after `num_seen` images of the epoch."""
        path = (epoch, step, self._real_stream(episode_index))
        if self._chances_N is None:
            seed = seed_for(self._config.seed, "permuted", epoch, self._real_stream(episode_index))
            # The pool's cycles over one class, all training images, below a seed of their own.
            permutations = PoolCycles(np.array([len(self._labels)]), seed)
            indices_N = permutations.take(0, num_seen, num_images)
        else:
            rng = rng_for(self._config.seed, "resampled", *path)
            indices_N = rng.choice(len(self._chances_N), num_images, p=self._chances_N)
        drawn = as_tensor(indices_N, self._device)
        draws = [self._draw(num_images, "augment-resampled", *path, *view) for view in self._views()]
        return MiniBatch(views=self._augmented(self._images[drawn], draws), labels_N=self._labels[drawn])

    def _augmented(self, images_NCHW: Tensor, draws_by_view: list[Tensor]) -> tuple[Tensor, ...]:
        images_NCHW = to_float(images_NCHW)
        return tuple(
            self.normalisation.apply(self._augment.apply(images_NCHW, draws)) for draws in draws_by_view
        )

    def _views(self) -> Iterator[tuple[str | int, ...]]:
        """Yield what each view adds to the path of its seeds.

        The first adds nothing: methods of one view and of several then see the same first view.
        """
        yield ()
        yield from (("view", view) for view in range(1, self._num_views))

    def _draw(self, num_images: int, *path: str | int) -> Tensor:
        return self._augment.draw(num_images, seed_for(self._config.seed, *path))

    def _real_stream(self, episode_index: int) -> int:
        common = self._config.sampler.common_random_numbers or self._divides_epochs
        return 0 if common else episode_index

    @property
    def _divides_epochs(self) -> bool:
        """Return whether the K episodes divide one order of the images among them."""
        return self._config.sampler.episode == "share"


def _chances(data: TrainingData, power: float) -> Float64:
    """Return [N]: the probability of each training image when an image of class c weighs n_c^-power."""
    counts_C = data.train.class_counts(data.num_classes).astype(np.float64)
    weights_N = counts_C[data.train.labels_N] ** -power
    return weights_N / weights_N.sum()


def _check_pool(pool: SyntheticSource, data: TrainingData) -> None:
    """Check that a pool has images of every class, in the shape of the data's.

    Raises:
        UserError: it has not.
    """
    sizes_C = pool.class_sizes_C
    if len(sizes_C) != data.num_classes:
        raise UserError(
            f"the pool has {len(sizes_C)} classes, but {data.name} has {data.num_classes}: use its own pool"
        )
    for class_id, size in enumerate(sizes_C.tolist()):
        if size == 0:
            raise UserError(
                f"the pool has no images of class {data.class_names[class_id]!r}: "
                "every class needs one at least; add some, or leave out --pool to make a pool"
            )
    # Reads one image: the shape is known only from the images themselves.
    shape = pool.images(0, np.zeros(1, np.int64)).shape[1:]
    if shape != data.image_shape_CHW:
        raise UserError(
            f"the pool's images are {shape} (channels, height, width), but those of {data.name} are "
            f"{data.image_shape_CHW}: make both alike with dataset.size_px and dataset.channels"
        )
