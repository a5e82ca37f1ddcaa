import numpy as np
import pytest

from rlcas.config import ShotsConfig
from rlcas.errors import UserError
from rlcas.shots import ShotGroups, shot_groups

TRAIN = np.array([2351, 101, 100, 20, 19, 49])
TEST = np.array([600, 30, 28, 6, 5, 14])


def test_thresholds_on_training_images_are_exclusive():
    assert shot_groups(ShotsConfig(), TRAIN, None) == ShotGroups(many=(0, 1), medium=(2, 3, 5), few=(4,))


def test_the_same_thresholds_on_test_images_make_the_tail_few_shot():
    assert shot_groups(ShotsConfig(source="test"), TRAIN, TEST) == ShotGroups(
        many=(0,), medium=(1, 2), few=(3, 4, 5)
    )


def test_total_counts_both():
    assert shot_groups(ShotsConfig(source="total"), TRAIN, TEST) == ShotGroups(
        many=(0, 1, 2), medium=(3, 4, 5), few=()
    )


def test_without_test_images_a_rule_that_counts_them_gives_empty_groups():
    assert shot_groups(ShotsConfig(source="test"), TRAIN, None) == ShotGroups(many=(), medium=(), few=())


def test_explicit_lists_replace_the_rule_and_the_rest_is_medium():
    groups = shot_groups(ShotsConfig(many=(5, 0), few=(1,)), TRAIN, None)
    assert groups == ShotGroups(many=(5, 0), medium=(2, 3, 4), few=(1,))


def test_an_explicit_class_that_does_not_exist_is_named():
    with pytest.raises(UserError, match=r"shots\.few holds class 6, but the data set has classes 0 to 5"):
        shot_groups(ShotsConfig(many=(0,), few=(1, 6)), TRAIN, None)


def test_a_class_in_both_lists_is_named():
    with pytest.raises(UserError, match=r"class 2 is in shots\.many and in shots\.few"):
        shot_groups(ShotsConfig(many=(0, 2), few=(2,)), TRAIN, None)
