"""Which real images a run's synthetic ones start from: of their own class, or of the class it is confused with."""

from __future__ import annotations

import numpy as np

from cluster.pools.judge import real_classifier
from rlcas.config import RunConfig
from rlcas.runs.context import RunContext
from rlcas.training.saved_classifier import predict
from rlcas.types import Float64, Int64, TrainingData
from synth.ldm.start_images import DealtImages


def start_images(context: RunContext) -> DealtImages | None:
    """Return the images that the settings start from; None where they start from noise.

    With `sources` confused the classifier of the real images is trained here, unless it is there.
    """
    data, config = context.data, context.config
    if config.synth.generation.start == "noise" or config.synth.generation.sources == "own":
        return own_images(data, config)
    probabilities_NC = predict(real_classifier(context), data.train.images_NCHW)
    return _dealt(data, confused_classes(probabilities_NC, data.train.labels_N), config)


def own_images(data: TrainingData, config: RunConfig) -> DealtImages | None:
    """Return the training images of each class itself; None where the settings start from noise."""
    if config.synth.generation.start == "noise":
        return None
    return _dealt(data, np.arange(data.num_classes), config)


def _dealt(data: TrainingData, source_class_of_C: Int64, config: RunConfig) -> DealtImages:
    return DealtImages(
        data.train,
        source_class_of_C.tolist(),
        data.class_names,
        seed=config.seed,
        chosen_by=str(config.synth.generation.sources),
    )


def confused_classes(probabilities_NC: Float64, labels_N: Int64) -> Int64:
    """Return [C]: of the classes with more images than class c, the one that its images are most probably taken for.

    It has the highest mean probability over the images of class c; of equals the first. Where no class has more
    images, it is c itself.

    Args:
        probabilities_NC: a classifier's probabilities of the images.
        labels_N: their true classes; every class has an image.
    """
    num_classes = probabilities_NC.shape[1]
    counts_C = np.bincount(labels_N, minlength=num_classes)
    chosen_C = np.arange(num_classes)
    for c in range(num_classes):
        means_C = np.where(counts_C > counts_C[c], probabilities_NC[labels_N == c].mean(axis=0), -1.0)
        if means_C.max() >= 0:
            chosen_C[c] = means_C.argmax()
    return chosen_C
