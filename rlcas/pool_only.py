"""Train on synthetic images alone, test on real ones: does the pool teach what the classes look like?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from rlcas.composition import no_synthetic_images
from rlcas.config import RunConfig
from rlcas.types import ImageSet, SyntheticSource, TrainingData


def as_training_data(pool: SyntheticSource, data: TrainingData) -> TrainingData:
    """Return `data` with its training images replaced by all of the pool; validation stays real."""
    sizes_C = pool.class_sizes_C
    images_NCHW = np.concatenate([pool.images(c, np.arange(size)) for c, size in enumerate(sizes_C)])
    labels_N = np.repeat(np.arange(data.num_classes), sizes_C)
    return replace(data, train=ImageSet(images_NCHW=images_NCHW, labels_N=labels_N))
