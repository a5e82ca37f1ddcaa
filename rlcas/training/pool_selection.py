"""Selection of a pool's images for a row of the comparison: FreeMask's filter and re-sampling by hardness.

FreeMask (Yang et al. 2023) is a method of segmentation: it drops synthetic pixels whose loss is too large, and makes
more synthetic images for hard masks. Here both are done by class, for images that are generated from their class
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from rlcas.batches.sources import ListedImages
from rlcas.batches.static_mixture import apportion
from rlcas.classifiers.inference import predict_logits
from rlcas.config import RunConfig
from rlcas.devices import as_tensor
from rlcas.seeding import rng_for
from rlcas.training.saved_classifier import Classifier
from rlcas.types import Float64, Int64, SyntheticSource, TrainingData, Uint8


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The selected images of a pool, and the share of each class in the composition."""

    source: SyntheticSource
    """The images; every class has at least one, which trainers require."""
    shares_C: Float64
    """[C]: shares of the classes among the added images, which sum to 1, for `static_mixture.apportion`; 0 for a class
    without images that passed the filter, and all 0 if there are none at all."""
    kept_C: Int64
    """[C] int64: images of the pool that passed the filter."""
    mean_losses_C: Float64
    """[C]: mean loss of the real training images of each class."""


Select = Callable[[TrainingData, SyntheticSource, Classifier, RunConfig], Selection]
"""A function of the data, a pool for it, a Baseline trained on the data's real images (`rlcas.training.baseline`,
`saved_classifier.load_classifier`) and the row's settings."""


def freemask(data: TrainingData, pool: SyntheticSource, classifier: Classifier, config: RunConfig) -> Selection:
    """Return the pool without images that the Baseline finds too hard, with more images of hard classes.

    With l the cross-entropy of the Baseline's prediction and m_c its mean over the real training images of class c:

    1. Synthetic images x of class c with l(x, c) > `method.freemask.tolerance` · m_c are dropped.
    2. The real images are ranked by m of their class, ties by their own loss; the one of rank i of N grants its class
       min(1 + round(nmax · i / N), nmax) synthetic images (`grants`).
    3. Each class has a list as long as its grants; if the lists are together longer than the remaining pool, all are
       shortened by one factor. A list repeats the remaining images of its class in a random order.

    A class without remaining images keeps the one of the smallest loss, and has the share 0.

    Args:
        data: training images and class names.
        pool: the synthetic images.
        classifier: a Baseline that was trained on the real images.
        config: the row's settings.
    """
    settings, num_classes = config.method.freemask, data.num_classes
    labels_N = data.train.labels_N
    losses_N = prediction_losses(classifier, data.train.images_NCHW, labels_N)
    means_C = class_means(losses_N, labels_N, num_classes)
    losses_by_class = [_losses_of_class(classifier, pool, c) for c in range(num_classes)]
    # Step 1: l(x, c) <= tolerance · m_c
    kept_by_class = keep(losses_by_class, settings.tolerance * means_C)
    kept_C = np.array([len(kept) for kept in kept_by_class], np.int64)
    # Step 2
    granted_C = np.where(kept_C > 0, grants(losses_N, means_C, labels_N, settings.nmax), 0)
    # Step 3: one factor for all lists, as long together as the images that remain.
    lengths_C = apportion(granted_C.astype(np.float64), min(int(granted_C.sum()), int(kept_C.sum())))
    lists = [
        _in_rounds(kept, length, config.seed, c) if length else np.array([losses_by_class[c].argmin()])
        for c, (kept, length) in enumerate(zip(kept_by_class, lengths_C.tolist(), strict=True))
    ]
    return Selection(
        source=ListedImages(pool, lists),
        shares_C=lengths_C / max(1, lengths_C.sum()),  # all 0 where no image remains
        kept_C=kept_C,
        mean_losses_C=means_C,
    )


def keep(losses_by_class: Sequence[Float64], limits_C: Float64) -> list[Int64]:
    """Return [C] arrays: indices of the images whose loss is at most their class's limit."""
    return [np.flatnonzero(losses <= limit) for losses, limit in zip(losses_by_class, limits_C, strict=True)]


def grants(losses_N: Float64, means_C: Float64, labels_N: Int64, nmax: int) -> Int64:
    """Return [C] int64: the number of synthetic images that a class's real images grant it.

    Args:
        losses_N: [N] losses of the real images.
        means_C: [C] their means by class.
        labels_N: [N] int64 classes of the real images.
        nmax: the number that the hardest image grants.
    """
    num_images = len(labels_N)
    ranks_N = np.empty(num_images, np.int64)
    # The last key of lexsort is the first criterion: m of the class, then the image's own loss.
    ranks_N[np.lexsort((losses_N, means_C[labels_N]))] = np.arange(1, num_images + 1)
    granted_N = np.minimum(1 + np.rint(nmax * ranks_N / num_images).astype(np.int64), nmax)
    return np.bincount(labels_N, weights=granted_N, minlength=len(means_C)).astype(np.int64)


def class_means(losses_N: Float64, labels_N: Int64, num_classes: int) -> Float64:
    """Return [C]: the mean loss of each class's images."""
    sums_C = np.bincount(labels_N, weights=losses_N, minlength=num_classes)
    return sums_C / np.bincount(labels_N, minlength=num_classes)


def prediction_losses(classifier: Classifier, images_NCHW: Uint8, labels_N: Int64) -> Float64:
    """Return [N]: the cross-entropy of a classifier's prediction for each image, without any prior."""
    images = as_tensor(images_NCHW, torch.device("cpu"))
    meta, device = classifier.meta, classifier.device
    logits_NC = predict_logits(classifier.model, images, meta.normalisation, meta.classifier, device)
    losses_N = F.cross_entropy(logits_NC.double(), as_tensor(labels_N, device), reduction="none")
    return losses_N.cpu().numpy()


def _losses_of_class(classifier: Classifier, pool: SyntheticSource, class_id: int) -> Float64:
    size = int(pool.class_sizes_C[class_id])
    images_NCHW = pool.images(class_id, np.arange(size))
    return prediction_losses(classifier, images_NCHW, np.full(size, class_id, np.int64))


def _in_rounds(indices: Int64, length: int, seed: int, class_id: int) -> Int64:
    """Return `length` of `indices` in a repeated random order: their frequencies differ by at most 1."""
    # np.resize repeats what it is given, unlike the method of arrays, which fills with zeros.
    return np.resize(rng_for(seed, "selection", class_id).permutation(indices), length)


SELECTIONS: dict[str, Select] = {"freemask": freemask}
"""Selections by the name in `Method.select`."""
