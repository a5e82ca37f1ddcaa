"""The figures of a pool, overall and for each class, from features and from the comparison with training images."""

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
    synthetic_ND: Features,
    synthetic_labels_N: Int64,
    train_MD: Features,
    train_labels_M: Int64,
    memory: Memorisation,
    marked_N: Mask,
    kept_N: Mask,
) -> dict[str, Any]:
    """Return the figures of the images of a pool that are kept, and the same for each class under `per_class`.

    A class's Fréchet distance is NaN unless it has more real and more synthetic images than features: a covariance
    of fewer images is singular, and the distance then mostly depends on their number.

    Args:
        synthetic_ND: features of all synthetic images, copies included.
        synthetic_labels_N: their classes.
        train_MD: features of the training images.
        train_labels_M: their classes.
        memory: the comparison of synthetic with training images.
        marked_N: the images marked as copies.
        kept_N: the images that are not skipped.
    """

    def scores(class_N: Mask, real_M: Mask, *, with_fid: bool) -> dict[str, Any]:
        kept, real = synthetic_ND[class_N & kept_N], train_MD[real_M]
        kid = kernel_estimate(kept, real)
        return {
            "n_real": len(real),
            "n_synthetic": len(kept),
            "fid": frechet_distance(kept, real) if with_fid else math.nan,
            "kid": kid.value,
            "intervals": {"kid": (kid.low, kid.high)},
            "prdc": prdc(kept, real),
            "distance_ratio": float(np.median(memory.distances_N[class_N & kept_N])) / memory.held_out_distance,
            "auth_pct": 100 * float(memory.authentic_N[class_N & kept_N].mean()),
            "copy_rate": float(memory.copies_N[class_N & kept_N].mean()),
            "copy_rate_before": float(memory.copies_N[class_N].mean()),
            "num_copies": int(marked_N[class_N].sum()),
        }

    per_class = []
    for class_id in range(int(train_labels_M.max()) + 1):
        class_N, real_M = synthetic_labels_N == class_id, train_labels_M == class_id
        fewest = min((class_N & kept_N).sum(), real_M.sum())
        per_class.append(scores(class_N, real_M, with_fid=fewest > synthetic_ND.shape[1]))
    everything = np.ones(len(synthetic_ND), bool), np.ones(len(train_MD), bool)
    return {**scores(*everything, with_fid=True), "per_class": per_class}
