from __future__ import annotations

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.quality import distances as quality
from synth.quality import neighbours
from synth.quality.memorisation import memorisation, others_percentiles

DIMS = 6
OF_TORCHMETRICS = pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all")


def features(num: int, *, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(num, DIMS)) @ rng.normal(size=(DIMS, DIMS)) + shift).astype(np.float32)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the full table, by subtraction."""
    return np.linalg.norm(a[:, None].astype(np.float64) - b[None].astype(np.float64), axis=2)


class Identity(torch.nn.Module):
    """In place of the Inception network of torchmetrics: here the "images" are the features."""

    num_features = DIMS

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, 0, 0].double()


def by_torchmetrics(metric: torch.nn.Module, synthetic: np.ndarray, real: np.ndarray) -> torch.Tensor:
    metric.set_dtype(torch.float64)
    for array, is_real in ((synthetic, False), (real, True)):
        metric.update(torch.from_numpy(array)[:, :, None, None].double(), real=is_real)
    return metric.compute()


def test_the_frechet_distance_of_known_moments_is_its_closed_form() -> None:
    corners = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]) * np.sqrt(3 / 4)  # unit covariance
    a, b = corners * [1, 2], corners * [3, 5] + [10, -1]
    expected = 10**2 + 1 + (1 - 3) ** 2 + (2 - 5) ** 2
    assert quality.frechet_distance(a, b) == pytest.approx(expected)
    assert quality.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("num", [40, 4])
def test_the_frechet_distance_is_that_of_torchmetrics_on_the_same_features(num: int) -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    metric = fid.FrechetInceptionDistance(feature=Identity(), input_img_size=(DIMS, 1, 1), normalize=False)
    a, b = np.round(features(num) * 9), np.round(features(num, shift=2, seed=1) * 9)
    assert quality.frechet_distance(a, b) == pytest.approx(by_torchmetrics(metric, a, b).item(), rel=1e-3)


@OF_TORCHMETRICS
def test_the_kernel_distance_is_that_of_torchmetrics_on_the_same_features() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    metric = kid.KernelInceptionDistance(feature=Identity(), subsets=1, subset_size=50)
    a, b = features(50), features(50, shift=0.5, seed=1)
    mean, _ = by_torchmetrics(metric, a, b)
    assert quality.kernel_distance(a, b) == pytest.approx(mean.item(), rel=1e-6)


@OF_TORCHMETRICS
def test_the_kernel_distance_of_sets_of_unequal_length_is_the_mean_of_torchmetrics_subsets() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    metric = kid.KernelInceptionDistance(feature=Identity(), subsets=400, subset_size=30)
    a, b = features(40), features(90, shift=0.5, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mean, std = by_torchmetrics(metric, a, b)
    assert abs(quality.kernel_distance(a, b) - mean.item()) < 3 * std.item() / math.sqrt(400)


def kernel(x: np.ndarray, y: np.ndarray) -> float:
    return float((x @ y / DIMS + 1) ** 3)


def squared_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Return the double sums of the definition."""
    own, other = (
        np.mean([kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (a, b)
    )
    return float(own + other - 2 * np.mean([kernel(x, y) for x in a for y in b]))


def test_the_kernel_distance_is_the_double_sum_of_its_definition() -> None:
    a, b = features(7).astype(np.float64), features(4, shift=1, seed=1).astype(np.float64)
    assert quality.kernel_distance(a, b) == pytest.approx(squared_mmd(a, b))


def test_the_kernel_distance_is_unbiased() -> None:
    draws = [
        quality.kernel_distance(*np.random.default_rng(seed).normal(size=(2, 30, 4))) for seed in range(300)
    ]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(300)
    assert min(draws) < 0


def test_the_interval_of_the_kernel_distance_is_the_jackknifes() -> None:
    a, b = features(6).astype(np.float64), features(9, shift=1, seed=1).astype(np.float64)
    without_a = [squared_mmd(np.delete(a, i, 0), b) for i in range(6)]
    without_b = [squared_mmd(a, np.delete(b, i, 0)) for i in range(9)]
    half = 1.96 * math.sqrt(5 * np.var(without_a) + 8 * np.var(without_b))
    estimate = quality.kernel_estimate(a, b)
    assert estimate.value == pytest.approx(squared_mmd(a, b))
    assert estimate.high - estimate.value == pytest.approx(half, rel=1e-4)
    assert estimate.value - estimate.low == pytest.approx(half, rel=1e-4)


@pytest.mark.parametrize(("shift", "least"), [(0.0, 0.97), (0.5, 0.9)])
def test_the_interval_covers_the_true_kernel_distance(shift: float, least: float) -> None:
    """Rectified normal features, as skewed as a network's. For sets of one distribution the variance is doubled."""

    def drawn(seed: int, num_a: int, num_b: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        return np.maximum(rng.normal(size=(num_a, 16)), 0), np.maximum(rng.normal(shift, size=(num_b, 16)), 0)

    true = quality.kernel_distance(*drawn(0, 4000, 4000))
    estimates = [quality.kernel_estimate(*drawn(seed, 40, 60)) for seed in range(1, 301)]
    assert np.mean([low <= true <= high for _, low, high in estimates]) > least


def test_two_images_have_a_kernel_distance_but_no_interval() -> None:
    estimate = quality.kernel_estimate(features(2), features(9, seed=1))
    assert math.isfinite(estimate.value) and math.isnan(estimate.low) and math.isnan(estimate.high)


@settings(max_examples=20)
@given(st.integers(7, 40), st.integers(7, 40), st.floats(0, 3), st.integers(0, 99), st.sampled_from([3, 5]))
def test_prdc_is_that_of_its_authors_package(num: int, num_real: int, shift: float, seed: int, k: int) -> None:
    prdc = pytest.importorskip("prdc")
    synthetic, real = features(num, shift=shift, seed=seed), features(num_real, seed=seed + 100)
    with contextlib.redirect_stdout(io.StringIO()):
        expected = prdc.compute_prdc(real, synthetic, nearest_k=k)
    assert quality.prdc(synthetic, real, k) == pytest.approx(expected)


def test_prdc_of_a_hand_drawn_line() -> None:
    real = np.array([[0.0], [1], [3]])  # radii to the nearest other: 1, 1, 2
    synthetic = np.array([[0.5], [4.5], [9]])  # radii 4, 4, 4.5
    assert quality.prdc(synthetic, real, k=1) == pytest.approx(
        {"precision": 2 / 3, "recall": 1.0, "density": (2 + 1) / 3, "coverage": 1.0}
    )


def test_a_set_of_no_more_than_k_images_has_no_prdc() -> None:
    for synthetic, real in ((features(5), features(9)), (features(9), features(5))):
        assert all(map(math.isnan, quality.prdc(synthetic, real, k=5).values()))


def test_nearest_distances_are_those_of_the_full_table() -> None:
    a, b = features(600), features(50, seed=1)
    found, apart = neighbours.nearest(a, b)
    table = distances(a, b)
    np.testing.assert_array_equal(found, table.argmin(axis=1))
    np.testing.assert_allclose(apart, table.min(axis=1), rtol=1e-12)


def test_distances_far_from_the_origin_are_exact() -> None:
    a = features(30) + 1e4
    apart = neighbours.nearest(a + np.float32(0.01), a)[1]
    np.testing.assert_allclose(apart, distances(a + np.float32(0.01), a).min(axis=1), rtol=1e-12)


def test_memory_does_not_grow_with_the_product_of_the_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    monkeypatch.setattr(neighbours, "CHUNK_DISTANCES", 1000)
    table = distances(features(90), features(70, seed=1))
    for rows, squared in neighbours.squared_distances(features(90), features(70, seed=1)):
        held.append(squared.size)
        np.testing.assert_allclose(np.sqrt(squared), table[rows], rtol=1e-6)
    assert max(held) <= 1000 and sum(held) == table.size


def test_copies_are_found_and_mirrored_copies_too() -> None:
    train, mirrored, held_out, new = np.random.default_rng(0).normal(size=(4, 400, 8))
    made = np.concatenate([train[:100] + 1e-3, mirrored[50:60] - 1e-3, new[:300]])
    found = memorisation(made, train, mirrored, held_out)
    assert found.copies_N[:110].all() and found.copies_N[110:].mean() < 0.05
    np.testing.assert_array_equal(found.nearest_N[:110], [*range(100), *range(50, 60)])
    assert not found.mirrored_N[:100].any() and found.mirrored_N[100:110].all()
    table = np.minimum(distances(held_out, train), distances(held_out, mirrored))
    assert found.threshold == pytest.approx(np.percentile(table.min(axis=1), 1))


def test_either_rule_alone_makes_a_copy() -> None:
    """On a line: training images at 0, 10, 20 and 21, mirrored ones far away; held-out distances of 2 and 3."""
    train = np.array([[0.0], [10], [20], [21]])
    made = np.array([[1.9], [4.9], [24.9], [22.9], [24.6]])
    held_out = np.array([[12.0], [7]])
    found = memorisation(made, train, train + 1000, held_out)
    assert found.threshold == pytest.approx(2.01)
    assert found.nearest_N.tolist() == [0, 0, 3, 3, 3]
    np.testing.assert_allclose(found.distances_N, [1.9, 4.9, 3.9, 1.9, 3.6])
    assert found.copies_N.tolist() == [True, True, False, True, False]
    assert found.authentic_N.tolist() == [False, False, True, True, True]
    assert found.held_out_copy_rate == 1.0
    assert found.held_out_distance == 2.5  # of 2 and 3


def test_the_exact_copy_of_an_image_that_has_a_duplicate_is_a_copy() -> None:
    train = np.array([[0.0], [0], [5], [9]])
    found = memorisation(np.array([[0.0], [0.1]]), train, train + 1000, np.array([[0.0], [7]]))
    assert found.threshold < 0.1 and found.copies_N.tolist() == [True, False]


def test_copies_are_found_though_the_held_out_images_are_near_duplicates_themselves() -> None:
    train, mirrored, held_out = np.random.default_rng(0).normal(size=(3, 400, 8))
    leaked = np.concatenate([train[:100] + 1e-4, held_out[:300]])
    found = memorisation(train[100:200] + 1e-2, train, mirrored, leaked)
    assert (found.distances_N > found.threshold).all() and found.copies_N.all()
    assert 0.25 <= found.held_out_copy_rate < 0.3


def test_an_image_is_authentic_that_is_farther_from_a_real_one_than_this_is_from_its_next() -> None:
    """The few lines of the definition (Alaa et al. 2022), with mirrored images as real ones."""
    train, mirrored, held_out = np.random.default_rng(1).normal(size=(3, 40, 3))
    made = np.concatenate([train[:20] + 0.01, np.random.default_rng(2).normal(size=(60, 3))])
    known, owner = np.concatenate([train, mirrored]), np.tile(np.arange(40), 2)
    to_known, among = distances(made, known), distances(known, known)
    among[owner[:, None] == owner] = np.inf
    expected = [among[row.argmin()].min() < row.min() for row in to_known]
    found = memorisation(made, train, mirrored, held_out).authentic_N
    np.testing.assert_array_equal(found, expected)
    assert not found[:20].any() and 0.2 < found[20:].mean() < 0.9


@pytest.mark.parametrize("num", [2, 3, 78, 101, 350])
def test_each_held_out_image_is_compared_with_the_percentile_of_the_others(num: int) -> None:
    apart = np.random.default_rng(num).gamma(3.0, size=num)
    expected = [np.percentile(np.delete(apart, i), 1) for i in range(num)]
    found = others_percentiles(apart)
    np.testing.assert_array_equal(apart < found, apart < expected)
    assert (apart < found).mean() < max(2 / num, 0.02)


def test_a_single_held_out_image_is_not_a_copy_by_rule_one() -> None:
    assert others_percentiles(np.ones(1)).tolist() == [0.0]
