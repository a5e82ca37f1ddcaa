"""The mini-batches of an epoch: real images and synthetic ones, normalised and augmented on the device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from rlcas.augment import Augment
from rlcas.composition import EpochPlan, PoolCycles, batch_starts, check_composition, epoch_plan
from rlcas.config import RunConfig
from rlcas.devices import as_tensor
from rlcas.errors import UserError
from rlcas.images import Normalisation, SyntheticImages, to_float
from rlcas.seeding import rng_for, seed_for
from rlcas.types import Incumbent, Int64, SyntheticSource, TrainingData


class BatchMaker:
    """Makes the batches of any epoch; every draw has its own seed, so nothing carries over.

    Args:
        data: the training images; they stay on the device as uint8.
        pool: where synthetic images come from.
        config: the run's settings.
        device: where batches are made.

    Raises:
        UserError: the pool or the composition's settings do not fit the data.
    """

    def __init__(
        self, data: TrainingData, pool: SyntheticSource, config: RunConfig, device: torch.device
    ) -> None:
        _check_pool(pool, data)
        check_composition(config, data.num_classes)
        self.normalisation = Normalisation.of(data.train.images_NCHW)
        self.num_steps = len(batch_starts(len(data.train), config.classifier.batch_size))
        self._config = config
        self._device = device
        self._images = as_tensor(data.train.images_NCHW, device)
        self._labels = as_tensor(data.train.labels_N, device)
        self._synthetic = SyntheticImages(pool, device)
        self._cycles = PoolCycles(
            pool.class_sizes_C,
            config.seed,
            with_replacement=config.sampler.draw_mode == "with_replacement",
        )
        self._augment = Augment(config.classifier.augment)

    def plan(self, incumbent: Incumbent, counts_C: Int64, child: int) -> EpochPlan:
        """Return which images go into which batch of the epoch after `incumbent`."""
        rng = rng_for(self._config.seed, "order", incumbent.epoch, self._real_child(child))
        return epoch_plan(
            rng.permutation(len(self._labels)),
            self._config.classifier.batch_size,
            counts_C,
            incumbent.positions_C,
            self._cycles,
            fixed_total=self._config.sampler.batch_mode == "fixed_total",
        )

    def batches(self, plan: EpochPlan, epoch: int, child: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images [B, C, H, W] (float32, normalised, augmented) and labels [B], a batch a step.

        The real images come first; their order and augmentation do not depend on the composition, nor,
        under `sampler.common_random_numbers`, on the child.
        """
        counts_C = plan.counts_C
        synthetic_labels = as_tensor(np.repeat(np.arange(len(counts_C)), counts_C), self._device)
        for step, indices in enumerate(plan.real_batches):
            real = as_tensor(indices, self._device)
            synthetic = self._synthetic.take([rows[step] for rows in plan.synthetic_by_class])
            real_draws = self._draw(len(real), "augment-real", epoch, step, self._real_child(child))
            synthetic_draws = self._draw(len(synthetic_labels), "augment-synthetic", epoch, step, child)
            images = to_float(torch.cat([self._images[real], *synthetic]))
            images = self._augment.apply(images, torch.cat([real_draws, synthetic_draws]))
            labels = torch.cat([self._labels[real], synthetic_labels])
            yield self.normalisation.apply(images), labels

    def _draw(self, num_images: int, *path: str | int) -> Tensor:
        return self._augment.draw(num_images, seed_for(self._config.seed, *path))

    def _real_child(self, child: int) -> int:
        return 0 if self._config.sampler.common_random_numbers else child


def _check_pool(pool: SyntheticSource, data: TrainingData) -> None:
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
    shape = pool.images(0, np.zeros(1, np.int64)).shape[1:]
    if shape != data.image_shape_CHW:
        raise UserError(
            f"the pool's images are {shape} (channels, height, width), but those of {data.name} are "
            f"{data.image_shape_CHW}: make both alike with dataset.size_px and dataset.channels"
        )
