"""Whether a classifier of the real images recognises a pool: closed forms, noise and classes without images."""

import numpy as np
import pytest
from scipy import stats

from synth.quality.recognition import recognition_probability

LABELS = np.repeat(np.arange(4), 50)
REAL = np.repeat(np.arange(4), 5)


def test_the_probability_is_that_of_the_indices_difference():
    """Class 1: 30 of 50 recognised, and 6 of the 150 others taken for it; of real ones 4 of 5, and none."""
    predicted = LABELS.copy()
    predicted[50:70], predicted[100:106] = 0, 1
    real = REAL.copy()
    real[5] = 2
    probability_C = recognition_probability(predicted, LABELS, real, REAL, 4)
    shares = np.array([31 / 52, 7 / 152, 5 / 7, 1 / 17])
    variances = shares * (1 - shares) / np.array([52, 152, 7, 17])
    gap = shares[0] - shares[1] - 0.25 * (shares[2] - shares[3])
    deviation = np.sqrt(variances[0] + variances[1] + (variances[2] + variances[3]) / 16)
    assert probability_C[1] == pytest.approx(stats.norm.cdf(gap / deviation))


def test_images_as_good_as_real_ones_are_recognised_and_noise_is_not():
    assert (recognition_probability(LABELS, LABELS, REAL, REAL, 4) > 0.99).all()
    all_one_class = np.full(200, 2)
    assert (recognition_probability(all_one_class, LABELS, REAL, REAL, 4) < 0.05).all()
    many = np.repeat(np.arange(4), 500)
    guessed = np.random.default_rng(0).integers(0, 4, len(many))
    assert (recognition_probability(guessed, many, REAL, REAL, 4) < 0.05).all()


def test_a_class_without_real_images_is_compared_with_the_others():
    real = REAL[:15]
    probability_C = recognition_probability(LABELS, LABELS, real, real, 4)
    assert (probability_C > 0.99).all()
    confused = np.where(LABELS == 3, 0, LABELS)
    assert recognition_probability(confused, LABELS, real, real, 4)[3] < 0.05


def test_a_classifier_that_knows_nothing_recognises_nothing():
    guessed, none = np.random.default_rng(1).integers(0, 4, 200), np.zeros(20, np.int64)
    assert (recognition_probability(guessed, LABELS, none, REAL, 4) < 0.5).all()
