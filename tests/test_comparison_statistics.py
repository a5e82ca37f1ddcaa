"""Intervals, paired differences and ranks of a comparison, against closed forms, references and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from rlcas.comparison.intervals import (
    WITH_DRAWS,
    drawn_figures,
    image_draws,
    interval,
    mean_and_std,
    paired_interval,
    ranks,
)
from rlcas.metrics import expected_calibration_error, report
from rlcas.shots import ShotGroups
from rlcas.types import Float64, Int64

SHOTS = ShotGroups(many=(0,), medium=(1, 2), few=(3,))
GROUPS = {"many": (0,), "medium": (1, 2), "few": (3,), "rarest": (3,)}
NO_SHOTS = {"many": (0,), "medium": (1, 2, 3), "few": (), "rarest": (3,)}


def predictions(rng: np.random.Generator, labels_N: Int64, skill: float) -> Float64:
    logits_NC = rng.normal(size=(len(labels_N), 4))
    logits_NC[np.arange(len(labels_N)), labels_N] += skill
    return np.exp(logits_NC) / np.exp(logits_NC).sum(axis=1, keepdims=True)


@pytest.fixture
def labels_N() -> Int64:
    return np.repeat([0, 1, 2, 3], [40, 20, 9, 4]).astype(np.int64)


def test_each_draw_has_the_figures_of_the_images_that_it_drew(labels_N: Int64) -> None:
    probabilities_NC = predictions(np.random.default_rng(1), labels_N, 1.0)
    weights_BN = image_draws(labels_N, draws=20)
    figures = drawn_figures(probabilities_NC, labels_N, weights_BN, GROUPS)
    for b, weights_N in enumerate(weights_BN.astype(int)):
        drawn = np.repeat(np.arange(len(labels_N)), weights_N)
        true, predicted = labels_N[drawn], probabilities_NC[drawn].argmax(axis=1)
        macro = {"labels": range(4), "average": "macro", "zero_division": 0}
        recall_C = recall_score(true, predicted, labels=range(4), average=None, zero_division=0)
        reference = {
            "f1": f1_score(true, predicted, **macro),
            "recall": recall_C.mean(),
            "precision": precision_score(true, predicted, **macro),
            "acc": (true == predicted).mean(),
            "auc": np.mean(
                [roc_auc_score(true == c, probabilities_NC[drawn, c]) for c in range(4)],
            ),
            "average_precision": np.mean(
                [average_precision_score(true == c, probabilities_NC[drawn, c]) for c in range(4)]
            ),
            "log_loss": log_loss(true, probabilities_NC[drawn], labels=range(4)),
            "ece": expected_calibration_error(probabilities_NC[drawn], true),
            "many": recall_C[0],
            "medium": recall_C[1:3].mean(),
            "few": recall_C[3],
            "rarest": recall_C[3],
        }
        assert {name: figures[name][b] for name in figures} == pytest.approx(reference)


def test_the_first_draw_is_the_test_set_itself(labels_N: Int64) -> None:
    probabilities_NC = predictions(np.random.default_rng(2), labels_N, 1.0)
    figures = drawn_figures(probabilities_NC, labels_N, image_draws(labels_N, draws=1), GROUPS)
    whole = report(probabilities_NC, labels_N, SHOTS)
    known = [name for name in WITH_DRAWS if name in whole]
    assert {name: figures[name][0] for name in known} == pytest.approx({name: whole[name] for name in known})
    assert len(known) == 11


def test_a_draw_keeps_the_class_sizes(labels_N: Int64) -> None:
    weights_BN = image_draws(labels_N, draws=50)
    for c in range(4):
        assert set(weights_BN[:, labels_N == c].sum(axis=1)) == {(labels_N == c).sum()}
    assert len(np.unique(weights_BN, axis=0)) == 51, "the draws differ"


def test_an_empty_group_of_classes_has_no_interval(labels_N: Int64) -> None:
    probabilities_NC = predictions(np.random.default_rng(3), labels_N, 1.0)
    figures = drawn_figures(probabilities_NC, labels_N, image_draws(labels_N, draws=9), NO_SHOTS)
    found = interval({0: figures["few"], 1: figures["few"]})
    assert all(map(math.isnan, (found.value, found.low, found.high))) and found.sign == 0


def drawn_f1(seed: int, labels_N: Int64, skill: float) -> Float64:
    probabilities_NC = predictions(np.random.default_rng(seed), labels_N, skill)
    return drawn_figures(probabilities_NC, labels_N, image_draws(labels_N), GROUPS)["f1"]


def test_a_row_against_itself_differs_by_exactly_nothing(labels_N: Int64) -> None:
    row = {seed: drawn_f1(seed, labels_N, 1.0) for seed in range(3)}
    found = paired_interval(row, dict(row))
    assert found is not None
    assert (found.value, found.low, found.high, found.sign) == (0, 0, 0, 0)


def test_the_order_of_seeds_changes_nothing(labels_N: Int64) -> None:
    row = {seed: drawn_f1(seed, labels_N, 2.0) for seed in range(3)}
    other = {seed: drawn_f1(10 + seed, labels_N, 1.0) for seed in range(3)}
    turned = {seed: row[seed] for seed in (2, 0, 1)}
    assert paired_interval(row, other) == paired_interval(turned, other)
    found, back = paired_interval(row, other), paired_interval(other, row)
    assert found is not None and back is not None
    assert found.value == -back.value and found.sign == 1 and back.sign == -1


def test_a_difference_is_over_the_seeds_that_both_rows_have(labels_N: Int64) -> None:
    draws = {seed: drawn_f1(seed, labels_N, 1.0) for seed in range(4)}
    row, other = {0: draws[0], 1: draws[1], 7: draws[2]}, {0: draws[1], 1: draws[3], 8: draws[2]}
    found = paired_interval(row, other)
    assert found is not None and found.num_seeds == 2
    assert found.value == pytest.approx((draws[0][0] - draws[1][0] + draws[1][0] - draws[3][0]) / 2)
    assert paired_interval({0: draws[0]}, {1: draws[1]}) is None


def test_a_difference_of_shares_stays_between_minus_one_and_one() -> None:
    found = paired_interval(
        {0: np.full(1001, 0.9), 1: np.full(1001, 0.5)}, {0: np.zeros(1001), 1: np.zeros(1001)}
    )
    assert found is not None and (found.low, found.value, found.high) == (-1.0, 0.7, 1.0)


def test_equal_seeds_leave_the_bootstrap_over_images() -> None:
    draws_B = np.append(0.5, np.linspace(0, 1, 1001))
    of_three = interval(dict.fromkeys(range(3), draws_B))
    assert (of_three.low, of_three.high) == pytest.approx((0.025, 0.975))
    of_one = interval({0: draws_B})
    assert (of_one.low, of_one.high, of_one.num_seeds) == pytest.approx((0.025, 0.975, 1))


def test_images_that_change_nothing_leave_students_t_over_seeds() -> None:
    values_S = np.array([0.50, 0.53, 0.58])
    found = interval({seed: np.full(200_001, value) for seed, value in enumerate(values_S)})
    t_of_2 = 4.302653  # 97.5 % quantile of Student's t with 2 degrees of freedom
    reach = t_of_2 * values_S.std(ddof=1) / math.sqrt(3)
    assert found.value == pytest.approx(values_S.mean())
    assert (found.low, found.high) == pytest.approx(
        (values_S.mean() - reach, values_S.mean() + reach), abs=0.03 * reach
    )


@pytest.mark.parametrize("spread_of_seeds", [0.05, 0.4])
def test_the_interval_of_a_difference_covers_the_truth(spread_of_seeds: float) -> None:
    """Images of random difficulty and seeds of random skill; a row better by 0.3 in the same unit."""
    rng = np.random.default_rng(0)
    labels_N = np.zeros(150, np.int64)
    weights_BN = image_draws(labels_N, draws=400)
    covered, repetitions = 0, 400

    def correct_N(skill: float, difficulty_N: Float64) -> Float64:
        of_seeds = rng.normal(0, spread_of_seeds, (len(difficulty_N), 1))
        noise_N = rng.normal(0, 0.5, difficulty_N.shape) + of_seeds
        return (skill + noise_N > difficulty_N).astype(np.float64)

    difficulty = rng.normal(size=(2_000, 400))
    truth = float((correct_N(1.0, difficulty) - correct_N(0.7, difficulty)).mean())
    for _ in range(repetitions):
        difficulty_SN = np.tile(rng.normal(size=150), (3, 1))
        row, other = correct_N(1.0, difficulty_SN), correct_N(0.7, difficulty_SN)
        found = paired_interval(
            *({seed: weights_BN @ of_seed / 150 for seed, of_seed in enumerate(of)} for of in (row, other))
        )
        assert found is not None
        covered += found.low <= truth <= found.high
    assert covered / repetitions >= 0.93


def test_mean_and_standard_deviation_by_hand() -> None:
    assert mean_and_std({0: 1.0, 1: 2.0, 2: 6.0}) == pytest.approx((3.0, math.sqrt(7)))
    mean, std = mean_and_std({4: 0.25})
    assert mean == 0.25 and math.isnan(std)


def test_ranks_by_hand() -> None:
    found = ranks({"a": {0: 0.9, 1: 0.5}, "b": {0: 0.7, 1: 0.8}, "c": {0: 0.7}, "d": {0: 0.1, 1: 0.6}, "e": {}})
    assert found == {"a": {0: 1, 1: 3}, "b": {0: 2.5, 1: 1}, "c": {0: 2.5}, "d": {0: 4, 1: 2}, "e": {}}
