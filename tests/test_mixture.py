"""Constant compositions: counts in whole images in proportion to shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcas.batches.static_mixture import apportion, static_counts
from rlcas.config import CompareRunConfig


def config_of(*, batch_size: int = 64, batch_mode: str = "append", **compare: object) -> CompareRunConfig:
    return CompareRunConfig.model_validate(
        {
            "classifier": {"batch_size": batch_size},
            "sampler": {"batch_mode": batch_mode},
            "compare": compare,
        }
    )


def proportional(**compare: object) -> CompareRunConfig:
    return config_of(synthetic_balance="proportional", **compare)


@pytest.mark.parametrize(
    ("shares", "total", "counts"),
    [
        ([1, 1, 2], 4, [1, 1, 2]),
        ([5, 3, 2], 7, [4, 2, 1]),  # 3.5, 2.1, 1.4
        ([1, 1, 1], 4, [2, 1, 1]),
        ([7, 7, 1, 1], 8, [3, 3, 1, 1]),
        ([98, 1, 1], 10, [8, 1, 1]),  # 9.8, 0.1, 0.1: a class with a share is seen
        ([6, 3, 1], 2, [1, 1, 0]),  # too few for all: 1.2, 0.6, 0.2
        ([0, 3, 1], 8, [0, 6, 2]),
        ([0, 0], 5, [0, 0]),
    ],
)
def test_images_are_divided_by_largest_remainders(shares: list[float], total: int, counts: list[int]) -> None:
    np.testing.assert_array_equal(apportion(np.array(shares, float), total), counts)


@given(shares=st.lists(st.integers(0, 5000), min_size=1, max_size=40), total=st.integers(1, 600))
def test_counts_sum_to_the_total_and_are_near_the_shares(shares: list[int], total: int) -> None:
    weights = np.array(shares, float)
    counts = apportion(weights, total)
    assert counts.sum() == (total if weights.any() else 0)
    assert (counts[weights == 0] == 0).all()
    num_sharing = np.count_nonzero(weights)
    if num_sharing <= total:
        assert (counts[weights > 0] >= 1).all()
    assert (np.diff(counts[np.lexsort((counts, weights))]) >= 0).all()
    quotas = total * weights / max(weights.sum(), 1)
    if (quotas[weights > 0] >= 1).all():
        assert (abs(counts - quotas) < 1).all()


def test_a_row_adds_the_ratio_for_each_real_image_of_its_class() -> None:
    counts = np.array([400, 146])  # 9 steps of 64, the last of 34: 60.7 real images a step
    np.testing.assert_array_equal(static_counts(proportional(), counts), [45, 16])
    np.testing.assert_array_equal(static_counts(proportional(synthetic_ratio=0.5), counts), [22, 8])


def test_by_default_a_row_adds_as_many_images_of_each_class_as_rl_cas_starts_from() -> None:
    counts = np.array([400, 146])
    np.testing.assert_array_equal(static_counts(config_of(), counts), [31, 30])
    np.testing.assert_array_equal(static_counts(config_of(synthetic_ratio=0.5), counts), [15, 15])


def test_a_tiny_ratio_still_adds_one_image() -> None:
    counts = np.array([90, 10])
    np.testing.assert_array_equal(static_counts(config_of(synthetic_ratio=0.001), counts), [1, 0])


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
def test_replaced_images_keep_the_ratio_too(ratio: float) -> None:
    counts = static_counts(config_of(batch_mode="fixed_total", synthetic_ratio=ratio), np.full(4, 160))
    added = counts.sum()
    assert added / (64 - added) == pytest.approx(ratio, rel=0.05)
