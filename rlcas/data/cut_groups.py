"""Groups of images that a cut keeps together: those of a patient, and identical pictures."""

from __future__ import annotations

import numpy as np

from rlcas.data.source import RawSplit, counted
from rlcas.types import Int64


def cut_groups(split: RawSplit) -> tuple[Int64, tuple[str, ...]]:
    """Return [N] group of each image, in the order of the patients' ids, and a note if pictures are identical.

    Without ids each image is a patient of its own; patients who share a picture are one group. Pictures are
    compared where the split was surveyed.
    """
    num_images = len(split)
    group_N: Int64 = (
        np.arange(num_images)
        if split.patients_N is None
        else np.unique(split.patients_N, return_inverse=True)[1].astype(np.int64)
    )
    if split.survey is None:
        return group_N, ()
    first_with = {digest: i for i, digest in reversed(list(enumerate(split.survey.digests)))}
    twin_N = np.array([first_with[digest] for digest in split.survey.digests], np.int64)
    repeated = np.flatnonzero(twin_N != np.arange(num_images))
    if len(repeated) == 0:
        return group_N, ()
    return _united(group_N, twin_N), (_note(split, repeated, twin_N),)


def _united(group_N: Int64, twin_N: Int64) -> Int64:
    """Return groups in which each image and its twin are together: the lowest number of all that are linked."""
    united_N = group_N
    while True:
        # The lowest number spreads from a group to the twins of its images, until nothing changes.
        lowest_P = np.full(united_N.max() + 1, len(united_N))
        np.minimum.at(lowest_P, united_N, united_N[twin_N])
        np.minimum.at(lowest_P, united_N[twin_N], united_N)
        spread_N = np.minimum(lowest_P[united_N], united_N)
        if np.array_equal(spread_N, united_N):
            return united_N
        united_N = spread_N


def _note(split: RawSplit, repeated: Int64, twin_N: Int64) -> str:
    pairs = [f"{split.names[twin_N[i]]} = {split.names[i]}" for i in repeated]
    conflicts = [pair for pair, i in zip(pairs, repeated, strict=True) if _conflicts(split, i, twin_N)]
    note = f"identical pictures, kept in one split: {counted(pairs)}"
    return note + (f"; of them with conflicting labels: {counted(conflicts)}" if conflicts else "")


def _conflicts(split: RawSplit, i: int, twin_N: Int64) -> bool:
    return bool(split.labels_N[i] != split.labels_N[twin_N[i]])
