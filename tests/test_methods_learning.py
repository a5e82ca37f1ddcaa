"""The methods learn the tail: on long-tailed phantoms, against plain cross-entropy with the same images and epochs."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CPU

from rlcas.config import RunConfig
from rlcas.data import load
from rlcas.evaluate import Classifier, predict
from rlcas.fit import fit
from rlcas.meta import ClassifierMeta
from rlcas.metrics import per_class_recall
from rlcas.snapshot import to_state_dict
from rlcas.sources import RealImages
from rlcas.trainer import ClassifierTrainer
from rlcas.types import Float64, ImageSet

pytestmark = [pytest.mark.medium]
EPOCHS, SEED, OTHER_SEED = 20, 0, 1000


def config(method: str, **own: Any) -> RunConfig:
    """Return settings for 560 phantoms of eight classes, 200 of the first and 10 of the last."""
    return RunConfig.model_validate(
        {
            "seed": SEED,
            "dataset": {"phantom": {"num_images": 800, "imbalance": 20, "size_px": 16}},
            "classifier": {"method": method, "loss": "ce", "width": 8, "batch_size": 32, "lr": 3e-3},
            "sampler": {"epochs": EPOCHS, "metric": "recall"},
            "method": own,
        }
    )


@functools.cache
def training_data():
    return load(config("ce"))


@functools.cache
def balanced_images() -> ImageSet:
    """Return phantoms of another draw, as many of each class."""
    phantom = {"num_images": 600, "imbalance": 1, "size_px": 16}
    return load(RunConfig.model_validate({"seed": OTHER_SEED, "dataset": {"phantom": phantom}})).train


def recalls(config: RunConfig) -> Float64:
    """Return [C]: the recall of each class on balanced images, of the epoch that validation takes."""
    data = training_data()
    torch.set_num_threads(1)
    trainer = ClassifierTrainer(data, config, pool=RealImages(data.train), device=CPU)
    best, _ = fit(trainer, np.zeros(data.num_classes, np.int64), EPOCHS)
    trainer.model.load_state_dict(to_state_dict(best.arrays, trainer.model))
    classifier = Classifier(trainer.model, ClassifierMeta.of(data, config), CPU)
    test = balanced_images()
    return per_class_recall(predict(classifier, test.images_NCHW), test.labels_N)


@functools.cache
def plain() -> Float64:
    return recalls(config("ce"))
