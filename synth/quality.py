"""How faithful and how new synthetic images are, over features [N, D] from an extractor of the caller's choice.

A distance means nothing without its extractor and its numbers of images: record both beside it. The Fréchet
distance is biased at a few hundred images, the kernel distance is not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlcas.seeding import rng_for
from rlcas.types import Float64

Features = NDArray[np.floating]
COPY_PERCENTILE = 1.0
CHUNK_ROWS = 512


def frechet_distance(synthetic_ND: Features, real_MD: Features) -> float:
    """Return |μ_s - μ_r|² + tr(Σ_s + Σ_r - 2 (Σ_s Σ_r)^½), the FID of these features (Heusel et al. 2017)."""
    mean_s, root_s = _moments(synthetic_ND)
    mean_r, root_r = _moments(real_MD)
    # tr (Σ_s Σ_r)^½ is the sum of the singular values of Σ_s^½ Σ_r^½, for any roots R with Σ = Rᵀ R.
    cross = np.linalg.svd(root_s @ root_r.T, compute_uv=False).sum()
    return float(((mean_s - mean_r) ** 2).sum() + (root_s**2).sum() + (root_r**2).sum() - 2.0 * cross)


def kernel_distance(
    synthetic_ND: Features, real_MD: Features, *, subset_size: int = 1000, num_subsets: int = 100, seed: int = 0
) -> float:
    """Return the KID: the unbiased squared MMD with the kernel (xᵀy/D + 1)³ (Bińkowski et al. 2018).

    It is the mean over random subsets of `subset_size` images, or of as many as the smaller set has. Two sets
    that are both taken whole give one subset only.
    """
    rng = rng_for(seed, "kernel_distance")
    size = min(subset_size, len(synthetic_ND), len(real_MD))
    if size == len(synthetic_ND) == len(real_MD):
        num_subsets = 1
    draws = [
        squared_mmd(_subset(synthetic_ND, size, rng), _subset(real_MD, size, rng)) for _ in range(num_subsets)
    ]
    return float(np.mean(draws))


def squared_mmd(a_ND: Features, b_ND: Features) -> float:
    """Return the unbiased squared maximum mean discrepancy of two sets of as many features."""
    n = len(a_ND)
    within = sum(kernel.sum() - np.trace(kernel) for kernel in (_cubic(a_ND, a_ND), _cubic(b_ND, b_ND)))
    return float(within / (n * (n - 1)) - 2.0 * _cubic(a_ND, b_ND).mean())


def copy_rate(synthetic_ND: Features, train_MD: Features, held_out_KD: Features) -> float:
    """Return the share of synthetic images that are nearer to a training image than real ones ever are.

    Nearer is below the 1st percentile of the distances from held-out real images to their nearest training
    image: images that copy nothing score about 0.01. To count mirrored copies too, append the features of
    the mirrored training images to `train_MD`.
    """
    threshold = np.percentile(nearest_distances(held_out_KD, train_MD), COPY_PERCENTILE)
    return float((nearest_distances(synthetic_ND, train_MD) < threshold).mean())


def nearest_distances(from_ND: Features, to_MD: Features) -> Float64:
    """Return [N] Euclidean distances to the nearest of the second set."""
    to = np.asarray(to_MD, np.float64)
    squares_M = (to**2).sum(axis=1)
    rows = []
    for first in range(0, len(from_ND), CHUNK_ROWS):
        chunk = np.asarray(from_ND[first : first + CHUNK_ROWS], np.float64)
        nearest = to[(squares_M - 2.0 * chunk @ to.T).argmin(axis=1)]
        rows.append(np.sqrt(((chunk - nearest) ** 2).sum(axis=1)))
    return np.concatenate(rows)


def _moments(features_ND: Features) -> tuple[Float64, Float64]:
    """Return the mean [D], and a root R [min(N, D), D] of the covariance: Σ = Rᵀ R."""
    features = np.asarray(features_ND, np.float64)
    mean = features.mean(axis=0)
    return mean, np.linalg.qr((features - mean) / np.sqrt(len(features) - 1)).R


def _cubic(a_ND: Features, b_MD: Features) -> Float64:
    a, b = np.asarray(a_ND, np.float64), np.asarray(b_MD, np.float64)
    return (a @ b.T / a.shape[1] + 1.0) ** 3


def _subset(features_ND: Features, size: int, rng: np.random.Generator) -> Features:
    return features_ND[rng.permutation(len(features_ND))[:size]]
