"""The real images that synthetic ones start from, dealt in shuffled rounds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from rlcas.seeding import rng_for
from rlcas.types import ImageSet, Uint8


class DealtImages:
    """The training images of one class for each class (a `synth.generators.StartImages`).

    Every source of a class has its turn once in each round of as many synthetic images, in an order of its own. So the
    source of image i follows from seed, class and i alone.

    Args:
        train: the training images; no other part of the data is ever a source.
        source_class_of_C: [C] class whose images each class starts from; it has one at least.
        class_names: [C] names.
        seed: the run's seed.
        chosen_by: how the classes were chosen, for the manifest.
    """

    def __init__(
        self,
        train: ImageSet,
        source_class_of_C: Sequence[int],
        class_names: Sequence[str],
        *,
        seed: int,
        chosen_by: str,
    ) -> None:
        self._images_NCHW = train.images_NCHW
        self._sources_C = [np.flatnonzero(train.labels_N == source) for source in source_class_of_C]
        self._names = {class_names[c]: class_names[source] for c, source in enumerate(source_class_of_C)}
        self._seed, self._chosen_by = seed, chosen_by

    @cached_property
    def origin(self) -> Mapping[str, Any]:
        """Return how the classes were chosen, which they are, and the hash of their images."""
        digest = hashlib.sha256()
        for sources in self._sources_C:
            digest.update(f"{len(sources)}\n".encode())
            for source in sources:
                digest.update(self._images_NCHW[source].tobytes())
        return {
            "start": "image",
            "sources": self._chosen_by,
            "source_class_of": self._names,
            "source_images_sha256": digest.hexdigest(),
        }

    def images(self, class_id: int, indices: range) -> Uint8:
        """Return [len(indices), channels, H, W] uint8: the source of each of these synthetic images of the class."""
        return self._images_NCHW[[self._source(class_id, index) for index in indices]]

    def _source(self, class_id: int, index: int) -> int:
        """Return the number of an image's source among the training images."""
        sources = self._sources_C[class_id]
        round_number, turn = divmod(index, len(sources))
        return int(rng_for(self._seed, "source", class_id, round_number).permutation(sources)[turn])
