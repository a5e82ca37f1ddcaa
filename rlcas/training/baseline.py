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
    """Train a classifier of the run's settings on `train` alone for `epochs` and save it into `folder`.

    On synthetic images it tells whether they show what the classes look like; on the real ones it judges them. The
    best epoch is chosen on the real validation images, as for every other classifier.
    """
    sampler = config.sampler.model_copy(update={"epochs": epochs})
    classifier = config.classifier.model_copy(update={"method": "baseline"})
    config = config.model_copy(update={"sampler": sampler, "classifier": classifier})
    data = replace(data, train=train)
    trainer = ClassifierTrainer(data, config, pool=RealImages(train), device=device)
    best, _ = fit(trainer, np.zeros(data.num_classes, np.int64), epochs)
    save_incumbent(folder, best, data, config)
