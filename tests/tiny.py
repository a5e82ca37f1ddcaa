"""A learnable set of tiny images, and the settings of a run that takes a fraction of a second."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlcas.batches.sources import RealImages
from rlcas.config import RunConfig, SamplerConfig
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import EpochResult, ImageSet, Incumbent, Int64, SyntheticSource, TrainingData

if TYPE_CHECKING:
    from cluster.episodes.episode import TrainerFactory  # imports Ray, which most tests do without

CPU = torch.device("cpu")
ZEROS = np.zeros(3, np.int64)
"""The composition of the Baseline."""
MIXED = np.array([0, 4, 2])
"""A composition with synthetic images of two classes."""
FIXED = {"batch_mode": "fixed_total", "max_count": 5}
"""Settings `sampler` under which synthetic images replace real ones in a batch."""


def tiny_set(num_images: int, seed: int, *, channels: int = 1, num_classes: int = 3) -> ImageSet:
    rng = np.random.default_rng(seed)
    labels_N = np.sort(np.arange(num_images) % num_classes).astype(np.int64)
    noise = rng.integers(0, 120, (num_images, channels, 16, 16))
    images = noise + 60 * labels_N[:, None, None, None]
    return ImageSet(images_NCHW=np.clip(images, 0, 255).astype(np.uint8), labels_N=labels_N)


def tiny_data(num_train: int = 41) -> TrainingData:
    return TrainingData(
        name="tiny", class_names=("a", "b", "c"), train=tiny_set(num_train, 0), val=tiny_set(24, 1)
    )


def tiny_config(**sections: dict[str, object]) -> RunConfig:
    """Return settings for `tiny_data`; `classifier={...}` and so on override them."""
    classifier = {"width": 8, "batch_size": 16, **sections.pop("classifier", {})}
    sampler = {"epochs": 3, **sections.pop("sampler", {})}
    return RunConfig.model_validate({"classifier": classifier, "sampler": sampler, **sections})


def tiny_trainer(
    config: RunConfig | None = None,
    data: TrainingData | None = None,
    pool: SyntheticSource | None = None,
    device: torch.device = CPU,
) -> ClassifierTrainer:
    data = data or tiny_data()
    pool = pool or RealImages(data.train)
    return ClassifierTrainer(data, config or tiny_config(), pool=pool, device=device)


def tiny_factory(config: RunConfig, data: TrainingData | None = None) -> TrainerFactory:
    """Return what builds `tiny_trainer` on an actor, with the sampler's settings that it is called with."""
    return functools.partial(_tiny_trainer_of, config, data)


def _tiny_trainer_of(config: RunConfig, data: TrainingData | None, sampler: SamplerConfig) -> ClassifierTrainer:
    return tiny_trainer(config.model_copy(update={"sampler": sampler}), data)


def poisoned_trainer(
    config: RunConfig, sampler: SamplerConfig, *, epoch: int, episode_index: int
) -> ClassifierTrainer:
    """Return a trainer whose episode `episode_index` of `epoch` (from 1) starts from weights that are not numbers."""

    class Poisoned(ClassifierTrainer):
        def train_epoch(self, incumbent: Incumbent, counts_C: Int64, *, episode_index: int) -> EpochResult:
            if (incumbent.epoch + 1, episode_index) == poisoned:
                weights = np.full_like(incumbent.arrays["float32"], np.nan)
                incumbent = dataclasses.replace(incumbent, arrays={**incumbent.arrays, "float32": weights})
            return super().train_epoch(incumbent, counts_C, episode_index=episode_index)

    poisoned, data = (epoch, episode_index), tiny_data()
    config = config.model_copy(update={"sampler": sampler})
    return Poisoned(data, config, pool=RealImages(data.train), device=CPU)
