"""Train on synthetic images alone, test on real ones: does the pool show what the classes look like?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from rlcas.config import RunConfig
from rlcas.evaluate import save_incumbent
from rlcas.fit import fit
from rlcas.sources import RealImages
from rlcas.trainer import ClassifierTrainer
from rlcas.types import ImageSet, SyntheticSource, TrainingData


def all_images(pool: SyntheticSource) -> ImageSet:
    """Return every image of the pool with its class."""
    sizes_C = pool.class_sizes_C
    images_NCHW = np.concatenate([pool.images(c, np.arange(size)) for c, size in enumerate(sizes_C)])
    return ImageSet(images_NCHW=images_NCHW, labels_N=np.repeat(np.arange(len(sizes_C)), sizes_C))


def train_on_pool(
    folder: Path, synthetic: ImageSet, data: TrainingData, config: RunConfig, device: torch.device
) -> None:
    """Train a classifier on synthetic images for `synth.scoring.pool_only_epochs` and save it into `folder`.

    The best epoch is chosen on the real validation images, as for every other classifier.
    """
    epochs = config.synth.scoring.pool_only_epochs
    config = config.model_copy(update={"sampler": config.sampler.model_copy(update={"epochs": epochs})})
    made = replace(data, train=synthetic)
    trainer = ClassifierTrainer(made, config, pool=RealImages(synthetic), device=device)
    best, _ = fit(trainer, np.zeros(data.num_classes, np.int64), epochs)
    save_incumbent(folder, best, made, config.classifier)
