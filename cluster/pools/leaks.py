"""Pools that know a run's test images: made from them by a generator that learnt from them, or holding them."""

from __future__ import annotations

import numpy as np

from rlcas import data as datasets
from rlcas.config import RunConfig
from rlcas.console import say
from rlcas.errors import UserError
from rlcas.types import SplitRecord
from synth.pool import SyntheticPool

TEST = "test"


def check_learnt_from(pool: SyntheticPool, record: SplitRecord) -> None:
    """Check that the pool's generator learnt from no test image of a run; print a note where that is not recorded.

    A test picture that the run itself trains on as well counts as known to both, and is not asked for here.

    Raises:
        UserError: it learnt from some; the message has the number.
    """
    if TEST not in record.parts:
        return
    if pool.learnt_from is None:
        say(
            f"note: pool {pool.folder} does not record which images its generator learnt from, so nobody knows "
            "whether test images are among them"
        )
        return
    known = set(pool.learnt_from) - set(record.parts["train"].digests)
    leaked = sum(digest in known for digest in record.parts[TEST].digests)
    if (in_val := sum(digest in known for digest in record.parts["val"].digests)) and not leaked:
        say(
            f"note: pool {pool.folder} was made from {in_val} of the validation images, whose figures are too good"
        )
    if leaked:
        raise UserError(
            f"pool {pool.folder} was made from {leaked} of the {len(record.parts[TEST])} test images: make a pool "
            "for this split, or set the seed, dataset.seed and dataset.split with which its images were split"
        )


def check_pixels(pool: SyntheticPool, config: RunConfig, record: SplitRecord) -> None:
    """Check that no image of the pool is a test image of a run, to the pixel.

    Raises:
        UserError: some are; the message has the number.
    """
    if TEST not in record.parts:
        return
    test = datasets.test_digests(config, record)
    found = 0
    for class_id, size in enumerate(pool.class_sizes_C):
        images_NCHW = pool.images(class_id, np.arange(size))
        found += sum(datasets.picture_digest(image) in test for image in images_NCHW)
    if found:
        raise UserError(
            f"pool {config.pool} holds {found} test images, to the pixel: remove them from it, or make another pool"
        )
