"""Synthetic sources other than a stored pool, and all images of a source as one set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlcas.types import ImageSet, Int64, SyntheticSource, Uint8


class RealImages:
    """The real training images as a `SyntheticSource`: over-sampling, the control without a synthesiser.

    Args:
        train: the training images; every class has one at least.
    """

    def __init__(self, train: ImageSet) -> None:
        self._images_NCHW = train.images_NCHW
        # Every class has an image, so position c of the sorted labels is class c.
        self._indices_by_class = [np.flatnonzero(train.labels_N == c) for c in np.unique(train.labels_N)]

    @property
    def class_sizes_C(self) -> Int64:
        """Return [C] int64: training images of each class."""
        return np.array([len(indices) for indices in self._indices_by_class], dtype=np.int64)

    def images(self, class_id: int, indices: Int64) -> Uint8:
        """Return [len(indices), channels, H, W] uint8."""
        return self._images_NCHW[self._indices_by_class[class_id][indices]]


class ListedImages:
    """Chosen images of another source, as a `SyntheticSource`; an image may be listed more than once.

    Args:
        source: where the images are.
        indices_by_class: [C] arrays of indices into each class of `source`.
    """

    def __init__(self, source: SyntheticSource, indices_by_class: Sequence[Int64]) -> None:
        self._source = source
        self._indices_by_class = indices_by_class

    @property
    def class_sizes_C(self) -> Int64:
        """Return [C] int64: length of each class's list."""
        return np.array([len(indices) for indices in self._indices_by_class], dtype=np.int64)

    def images(self, class_id: int, indices: Int64) -> Uint8:
        """Return [len(indices), channels, H, W] uint8."""
        return self._source.images(class_id, self._indices_by_class[class_id][indices])


def all_images(pool: SyntheticSource) -> ImageSet:
    """Return every image of a source with its class, class after class."""
    sizes_C = pool.class_sizes_C
    images_NCHW = np.concatenate([pool.images(c, np.arange(size)) for c, size in enumerate(sizes_C)])
    return ImageSet(images_NCHW=images_NCHW, labels_N=np.repeat(np.arange(len(sizes_C)), sizes_C))
