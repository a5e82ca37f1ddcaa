from __future__ import annotations

import numpy as np
import pytest
import torch

from synth import quality


def features(num: int, dims: int = 6, *, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(num, dims)) @ rng.normal(size=(dims, dims)) + shift).astype(np.float32)


def test_the_frechet_distance_of_known_moments_is_its_closed_form() -> None:
    corners = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]) * np.sqrt(3 / 4)  # unit covariance
    a, b = corners * [1, 2], corners * [3, 5] + [10, -1]
    expected = 10**2 + 1 + (1 - 3) ** 2 + (2 - 5) ** 2
    assert quality.frechet_distance(a, b) == pytest.approx(expected)
    assert quality.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("num", [40, 4])
def test_the_frechet_distance_is_that_of_torchmetrics_on_the_same_features(num: int) -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Identity(torch.nn.Module):
        num_features = 6

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, :, 0, 0].double()

    metric = fid.FrechetInceptionDistance(feature=Identity(), input_img_size=(6, 1, 1), normalize=False)
    metric.set_dtype(torch.float64)
    a, b = np.round(features(num) * 9), np.round(features(num, shift=2, seed=1) * 9)
    for array, real in ((a, False), (b, True)):
        metric.update(torch.from_numpy(array)[:, :, None, None].double(), real=real)
    assert quality.frechet_distance(a, b) == pytest.approx(metric.compute().item(), rel=1e-3)


def test_the_kernel_distance_is_the_double_sum_of_its_definition() -> None:
    a, b = features(7).astype(np.float64), features(7, shift=1, seed=1).astype(np.float64)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 6 + 1) ** 3)

    within = [kernel(s[i], s[j]) for s in (a, b) for i in range(7) for j in range(7) if i != j]
    across = [kernel(x, y) for x in a for y in b]
    expected = sum(within) / 42 - 2 * sum(across) / 49
    assert quality.kernel_distance(a, b) == pytest.approx(expected)


def test_the_kernel_distance_is_unbiased() -> None:
    draws = [
        quality.kernel_distance(*np.random.default_rng(seed).normal(size=(2, 30, 4))) for seed in range(300)
    ]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(300)
    assert min(draws) < 0


def test_subsets_of_the_kernel_distance_have_the_mean_of_the_whole() -> None:
    a, b = features(60), features(60, shift=1, seed=1)
    whole = quality.kernel_distance(a, b)
    parts = quality.kernel_distance(a, b, subset_size=30, num_subsets=200)
    assert parts == pytest.approx(whole, rel=0.1) and parts != whole


def test_sets_of_unequal_length_are_compared_by_subsets_of_the_shorter() -> None:
    a, b = features(20), features(60, shift=1, seed=1)
    one = quality.kernel_distance(a, b, num_subsets=1)
    assert quality.kernel_distance(a, b, num_subsets=50) != one
    assert quality.kernel_distance(a, b, num_subsets=1) == one
    assert quality.kernel_distance(a, b, num_subsets=1, seed=1) != one


def test_one_subset_is_enough_where_it_is_the_whole_of_both_sets() -> None:
    a, b = features(20), features(20, shift=1, seed=1)
    whole = quality.squared_mmd(a, b)
    assert quality.kernel_distance(a, b, num_subsets=50) == pytest.approx(whole)
    assert quality.kernel_distance(a, b, num_subsets=50, subset_size=19) != pytest.approx(whole, rel=1e-6)


def test_nearest_distances_are_those_of_the_full_table() -> None:
    a, b = features(600), features(50, seed=1)
    table = np.linalg.norm(a[:, None].astype(np.float64) - b[None].astype(np.float64), axis=2)
    np.testing.assert_allclose(quality.nearest_distances(a, b), table.min(axis=1), rtol=1e-6)


def test_the_copy_rate_is_the_share_of_copies() -> None:
    rng = np.random.default_rng(0)
    train, held_out, new = rng.normal(size=(3, 400, 8))
    copies = train[:100] + 1e-3
    assert quality.copy_rate(copies, train, held_out) == 1.0
    assert quality.copy_rate(new, train, held_out) < 0.04
    mixed = quality.copy_rate(np.concatenate([copies, new[:300]]), train, held_out)
    assert mixed == pytest.approx(0.25, abs=0.03)
