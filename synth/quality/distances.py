"""Distances between synthetic and real images, over features [N, D] from an extractor of the caller's choice.

A figure is meaningless without its extractor and numbers of images: record both with it. The Fréchet distance is
biased at a few hundred images, the kernel distance is not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rlcas.types import Float64
from synth.quality.neighbours import Features, chunks, kth_distances, squared_distances

NEAREST_K = 5
NORMAL_95 = 1.959964  # 97.5 % quantile of the normal distribution


class Estimate(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def frechet_distance(synthetic_ND: Features, real_MD: Features) -> float:
    """Return |μ_s - μ_r|² + tr(Σ_s + Σ_r - 2 (Σ_s Σ_r)^½), the FID of these features (Heusel et al. 2017)."""
    mean_s, root_s = _moments(synthetic_ND)
    mean_r, root_r = _moments(real_MD)
    # tr (Σ_s Σ_r)^½ is the sum of the singular values of Σ_s^½ Σ_r^½, for any roots R with Σ = Rᵀ R.
    cross = np.linalg.svd(root_s @ root_r.T, compute_uv=False).sum()
    return float(((mean_s - mean_r) ** 2).sum() + (root_s**2).sum() + (root_r**2).sum() - 2.0 * cross)


def kernel_distance(synthetic_ND: Features, real_MD: Features) -> float:
    """Return the KID: the unbiased squared MMD with the kernel (xᵀy/D + 1)³ (Bińkowski et al. 2018).

    It is computed once over all pairs of images. The usual mean over random subsets has the same expectation, a larger
    variance, and depends on a seed.
    """
    return kernel_estimate(synthetic_ND, real_MD).value


def kernel_estimate(synthetic_ND: Features, real_MD: Features) -> Estimate:
    """Return `kernel_distance` with a 95 % interval.

    The KID is a two-sample U-statistic, so its variance is estimated by the jackknife, which leaves out each image in
    turn (Arvesen 1969). The estimate is conservative (Efron & Stein 1981): twice the variance if both sets have the
    same distribution. A bootstrap would bias a U-statistic, as an image drawn twice forms a pair with itself. A set of
    one image has no distance, a set of two has no interval: NaN.
    """
    within_N, across_N = _within(synthetic_ND), _across(synthetic_ND, real_MD)
    within_M, across_M = _within(real_MD), _across(real_MD, synthetic_ND)
    n, m = len(within_N), len(within_M)
    if min(n, m) < 2:
        return Estimate(math.nan, math.nan, math.nan)
    own, other = within_N.sum() / (n * (n - 1)), within_M.sum() / (m * (m - 1))
    value = own + other - 2.0 * across_N.sum() / (n * m)
    variance = _jackknife_variance(within_N, across_N, m) + _jackknife_variance(within_M, across_M, n)
    spread = NORMAL_95 * math.sqrt(variance)
    return Estimate(float(value), float(value - spread), float(value + spread))


def prdc(synthetic_ND: Features, real_MD: Features, k: int = NEAREST_K) -> dict[str, float]:
    """Return precision, recall, density and coverage (Kynkäänniemi et al. 2019; Naeem et al. 2020).

    The ball around an image reaches to the k-th nearest other image of its set. Precision is the share of synthetic
    images inside a real ball, density the mean number of real balls that a synthetic image is inside, over k; recall
    is the share of real images inside a synthetic ball, coverage the share of real balls that contain a synthetic
    image. All are NaN if a set has no more than k images.
    """
    if min(len(synthetic_ND), len(real_MD)) <= k:
        return dict.fromkeys(("precision", "recall", "density", "coverage"), math.nan)
    real_radii_M, synthetic_radii_N = kth_distances(real_MD, k), kth_distances(synthetic_ND, k)
    balls_N = np.empty(len(synthetic_ND))
    recalled_M, covered_M = np.zeros(len(real_MD), bool), np.zeros(len(real_MD), bool)
    for rows, squared in squared_distances(synthetic_ND, real_MD):
        in_real = squared < real_radii_M**2
        balls_N[rows] = in_real.sum(axis=1)
        covered_M |= in_real.any(axis=0)
        recalled_M |= (squared < synthetic_radii_N[rows][:, None] ** 2).any(axis=0)
    return {
        "precision": float((balls_N > 0).mean()),
        "recall": float(recalled_M.mean()),
        "density": float(balls_N.mean() / k),
        "coverage": float(covered_M.mean()),
    }


def _moments(features_ND: Features) -> tuple[Float64, Float64]:
    """Return the mean [D], and a root R [min(N, D), D] of the covariance: Σ = Rᵀ R."""
    features = np.asarray(features_ND, np.float64)
    mean = features.mean(axis=0)
    return mean, np.linalg.qr((features - mean) / np.sqrt(len(features) - 1)).R


def _across(a_ND: Features, b_MD: Features) -> Float64:
    """Return [N]: Σ_j k(a_i, b_j)."""
    b = np.asarray(b_MD, np.float64)
    sums_N = np.empty(len(a_ND))
    for rows in chunks(len(a_ND), len(b)):
        sums_N[rows] = ((np.asarray(a_ND[rows], np.float64) @ b.T / b.shape[1] + 1.0) ** 3).sum(axis=1)
    return sums_N


def _within(a_ND: Features) -> Float64:
    """Return [N]: Σ_{j≠i} k(a_i, a_j)."""
    a = np.asarray(a_ND, np.float64)
    # Less the pair of each image with itself: the unbiased estimate leaves it out.
    return _across(a, a) - ((a**2).mean(axis=1) + 1.0) ** 3


def _jackknife_variance(within_N: Float64, across_N: Float64, m: int) -> float:
    """Return one set's term of the jackknife variance: each of its n images is left out in turn.

    Args:
        within_N: Σ_{j≠i} k(a_i, a_j) of the set's images.
        across_N: their Σ_j k(a_i, b_j) to the other set.
        m: images of the other set.
    """
    n = len(within_N)
    if n < 3:
        return math.nan
    # The estimate without image i, up to the other set's own term: that is the same for all i, so it does not
    # change the variance. Image i is in two of the ordered pairs with each other image, hence the factor 2.
    without_N = (within_N.sum() - 2.0 * within_N) / ((n - 1) * (n - 2))
    without_N -= 2.0 * (across_N.sum() - across_N) / ((n - 1) * m)
    return float((n - 1) * without_N.var())
