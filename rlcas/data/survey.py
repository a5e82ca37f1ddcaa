"""One pass over the pixels of a split: hashes, shapes and value ranges."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from rlcas.data.source import Pixels, RawSplit, Survey

DIGEST_BYTES = 16


def with_survey(split: RawSplit) -> RawSplit:
    """Return the split with the facts about its images, all of which are read unless that was done before."""
    if split.survey is not None:
        return split
    digests: list[bytes] = []
    shapes: list[tuple[int, ...]] = []
    lows, highs = np.full(len(split), np.nan), np.full(len(split), np.nan)
    for index, image in enumerate(split.open_images()):
        digests.append(picture_digest(image))
        shapes.append(image.shape)
        if image.dtype != np.uint8:
            lows[index], highs[index] = float(image.min()), float(image.max())
    assert len(digests) == len(split)
    return replace(split, survey=Survey(digests=digests, shapes=shapes, lows_N=lows, highs_N=highs))


def picture_digest(image: Pixels) -> bytes:
    """Return a hash of the shape, dtype and exact pixels of an image."""
    # Shape and dtype too: a flat image of another shape has the same bytes.
    head = f"{image.shape}{image.dtype}".encode()
    return hashlib.blake2b(head + image.tobytes(), digest_size=DIGEST_BYTES).digest()
