"""The plain classifier, trained on one set of images alone: the real ones, or a pool's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from rlcas.batches.sources import RealImages
from rlcas.config import RunConfig
from rlcas.training.fit import fit
from rlcas.training.saved_classifier import save_incumbent
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import ImageSet, TrainingData


def train_baseline(
    folder: Path, train: ImageSet, data: TrainingData, config: RunConfig, epochs: int, device: torch.device
) -> None:
    """Train a classifier by the run's settings on `train` alone and save it into `folder`.

    Trained on synthetic images, its test metrics show whether the images represent their classes; trained on the real
    ones, it classifies the synthetic images for their scores. The best epoch is chosen on the real validation images,
    as for every other classifier.

    Args:
        folder: where model.safetensors is written.
        train: the training images, in place of those of `data`.
        data: for the validation images and the classes.
        config: the run's settings; those of the method and the number of epochs are replaced.
        epochs: how many to train.
        device: where images and classifier are.
    """
    sampler = config.sampler.model_copy(update={"epochs": epochs})
    classifier = config.classifier.model_copy(update={"method": "baseline"})
    config = config.model_copy(update={"sampler": sampler, "classifier": classifier})
    data = replace(data, train=train)
    # With counts of zero no image of the pool is used, but the trainer requires one with images of every class.
    trainer = ClassifierTrainer(data, config, pool=RealImages(train), device=device)
    best, _ = fit(trainer, np.zeros(data.num_classes, np.int64), epochs)
    save_incumbent(folder, best, data, config, device)
