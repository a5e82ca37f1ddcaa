"""The figures of a pool, in all and class by class, from features and from what its images owe to others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlcas.types import Int64
from synth.quality.distances import frechet_distance, kernel_estimate, prdc
from synth.quality.memorisation import Memorisation
from synth.quality.neighbours import Features

Mask = NDArray[np.bool_]


def pool_scores(
    made_ND: Features,
    made_labels_N: Int64,
    train_MD: Features,
    train_labels_M: Int64,
    memory: Memorisation,
    marked_N: Mask,
    kept_N: Mask,
) -> dict[str, Any]:
    """Return the figures of the images of a pool that are kept, and the same under `per_class`.

    A class's Fréchet distance is NaN unless it has more images than features, real and synthetic: a covariance
    of fewer is singular, and the distance mostly tells how few they were.

    Args:
        made_ND: features of all synthetic images, copies too.
        made_labels_N: their classes.
        train_MD: features of the training images.
        train_labels_M: their classes.
        memory: what the synthetic images owe to the training images.
        marked_N: the pool's marks.
        kept_N: the images that the pool gives.
    """

    def scores(made_N: Mask, real_M: Mask, *, with_fid: bool) -> dict[str, Any]:
        kept, real = made_ND[made_N & kept_N], train_MD[real_M]
        kid = kernel_estimate(kept, real)
        return {
            "n_real": len(real),
            "n_synthetic": len(kept),
            "fid": frechet_distance(kept, real) if with_fid else math.nan,
            "kid": kid.value,
            "intervals": {"kid": (kid.low, kid.high)},
            "prdc": prdc(kept, real),
            "distance_ratio": float(np.median(memory.distances_N[made_N & kept_N])) / memory.held_out_distance,
            "auth_pct": 100 * float(memory.authentic_N[made_N & kept_N].mean()),
            "copy_rate": float(memory.copies_N[made_N & kept_N].mean()),
            "copy_rate_before": float(memory.copies_N[made_N].mean()),
            "num_copies": int(marked_N[made_N].sum()),
        }

    per_class = []
    for class_id in range(int(train_labels_M.max()) + 1):
        made_N, real_M = made_labels_N == class_id, train_labels_M == class_id
        fewest = min((made_N & kept_N).sum(), real_M.sum())
        per_class.append(scores(made_N, real_M, with_fid=fewest > made_ND.shape[1]))
    everything = np.ones(len(made_ND), bool), np.ones(len(train_MD), bool)
    return {**scores(*everything, with_fid=True), "per_class": per_class}
