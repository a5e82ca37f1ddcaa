from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_files import arrays, config, write_npz
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcas.data import load, load_test
from rlcas.data.longtail import long_tail_counts, thinned
from rlcas.data.split import cut_indices, part_sizes
from rlcas.errors import UserError

SPLIT = (0.7, 0.1, 0.2)


@pytest.mark.parametrize(
    ("total", "shares", "sizes"),
    [
        (100, SPLIT, [70, 10, 20]),
        (10, SPLIT, [7, 1, 2]),
        (3, SPLIT, [1, 1, 1]),
        (2, SPLIT, [1, 0, 1]),
        (4, SPLIT, [2, 1, 1]),
        (7, (1, 1), [4, 3]),
        (0, SPLIT, [0, 0, 0]),
    ],
)
def test_part_sizes_by_hand(total: int, shares: tuple[float, ...], sizes: list[int]) -> None:
    assert part_sizes(total, shares).tolist() == sizes


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=120),
    st.integers(0, 5),
)
def test_a_cut_shares_no_patient_and_loses_no_image(images: list[tuple[int, int]], seed: int) -> None:
    labels_N = np.array([label for label, _ in images], np.int64)
    patients_N = np.array([f"p{patient}" for _, patient in images])
    parts = cut_indices(labels_N, patients_N, SPLIT, seed)
    assert np.sort(np.concatenate(parts)).tolist() == list(range(len(images)))
    ids = [set(patients_N[part]) for part in parts]
    assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])
    assert all(
        np.array_equal(a, b) for a, b in zip(parts, cut_indices(labels_N, patients_N, SPLIT, seed), strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=3, max_size=200), st.integers(0, 5))
def test_every_class_of_three_images_is_in_every_part(labels: list[int], seed: int) -> None:
    labels_N = np.array(labels, np.int64)
    parts = cut_indices(labels_N, None, SPLIT, seed)
    for class_id in np.unique(labels_N):
        found = [int((labels_N[part] == class_id).sum()) for part in parts]
        total = int((labels_N == class_id).sum())
        assert found == part_sizes(total, SPLIT).tolist()
        assert min(found) >= 1 or total < 3


def test_a_class_that_no_patient_has_most_of_is_in_every_part_too() -> None:
    labels_N = np.array([0, 0, 1] * 3 + [0, 0, 0] * 30, np.int64)
    patients_N = np.repeat(np.arange(33), 3).astype(str)
    for seed in range(20):
        parts = cut_indices(labels_N, patients_N, SPLIT, seed)
        assert all((labels_N[part] == 1).any() for part in parts)


def test_another_seed_cuts_differently() -> None:
    labels_N = np.zeros(50, np.int64)
    cuts = {cut_indices(labels_N, None, SPLIT, seed)[1].tobytes() for seed in range(5)}
    assert len(cuts) == 5


def test_a_missing_split_is_cut_from_train_if_a_setting_says_so(tmp_path: Path) -> None:
    name = write_npz(tmp_path, val_images=None, val_labels=None, test_images=None, test_labels=None)
    with pytest.raises(
        UserError, match=r"set.npz has no val split: cut it from train with --dataset.val_from_train 0.1"
    ):
        load(config(name))
    with pytest.raises(
        UserError, match=r"has no test split: cut it from train with --dataset.test_from_train 0.2"
    ):
        load_test(config(name))
    both = config(name, val_from_train=0.25, test_from_train=0.25)
    data, (test, _) = load(both), load_test(both)
    assert [len(part) for part in (data.train, data.val, test)] == [6, 3, 3] or len(data.val) + len(test) == 6
    written = {image.tobytes() for image in arrays()["train_images"]}
    found = [image.tobytes() for part in (data.train, data.val, test) for image in part.images_NCHW]
    assert set(found) == written and len(found) == 12
    assert data.notes[0].startswith("cut from the source's 12 images, by images, stratified by class: train 6")
    with pytest.raises(UserError, match=r"val_from_train 0.5 and test_from_train 0.5 leave no training images"):
        load(config(name, val_from_train=0.5, test_from_train=0.5))


def test_a_setting_that_cuts_nothing_is_noted(tmp_path: Path) -> None:
    data = load(config(write_npz(tmp_path), val_from_train=0.3))
    assert data.notes == ("dataset.val_from_train is not used: the data has a val split",)
    assert len(data.train) == 12


def test_training_data_needs_no_test_split(tmp_path: Path) -> None:
    assert len(load(config(write_npz(tmp_path, test_images=None, test_labels=None))).val) == 4


def test_identical_pictures_across_splits_are_noted_with_conflicts(tmp_path: Path) -> None:
    found = arrays()
    found["val_images"][2], found["test_images"][:2] = found["train_images"][4], found["train_images"][[6, 7]]
    found["test_labels"][0] = 1
    data = load(config(write_npz(tmp_path, **found)))
    assert data.notes == (
        "identical pictures in train and val: 1 (train 4 = val 2)",
        "identical pictures in train and test: 2 (train 6 = test 0, train 7 = test 1); "
        "of them with conflicting labels: 1 (train 6 = test 0)",
    )


def test_long_tail_counts_by_hand() -> None:
    assert long_tail_counts(np.array([100, 100, 100]), 100.0).tolist() == [100, 10, 1]
    assert long_tail_counts(np.array([30, 500, 90]), 100.0).tolist() == [5, 500, 50]
    assert long_tail_counts(np.array([500, 3, 500]), 10.0).tolist() == [500, 3, 158]
    assert long_tail_counts(np.array([40, 40]), 1.0).tolist() == [40, 40]
    assert long_tail_counts(np.array([5, 5]), 50.0).tolist() == [5, 1]


def test_cifar_100_lt_has_its_published_profile() -> None:
    counts_C = long_tail_counts(np.full(100, 500), 100.0)
    assert (counts_C[0], counts_C[-1], counts_C.sum()) == (500, 5, 10847)


def test_subsampling_keeps_that_many_of_each_class_and_is_noted() -> None:
    labels_N = np.arange(60) % 3
    kept = thinned(labels_N, np.array([20, 5, 1]), np.random.default_rng(0))
    assert np.bincount(labels_N[kept]).tolist() == [20, 5, 1] and len(set(kept.tolist())) == 26


def test_only_train_is_thinned_and_a_note_has_the_new_counts(tmp_path: Path) -> None:
    data = load(config(write_npz(tmp_path), imbalance_factor=3.0))
    assert data.train.class_counts(2).tolist() == [6, 2] and data.val.class_counts(2).tolist() == [2, 2]
    assert data.notes == ("train is subsampled to a long tail of imbalance factor 3: 0 6, 1 2",)
    again, other = (load(config(write_npz(tmp_path), imbalance_factor=3.0, seed=seed)) for seed in (0, 1))
    np.testing.assert_array_equal(again.train.images_NCHW, data.train.images_NCHW)
    assert not np.array_equal(other.train.images_NCHW, data.train.images_NCHW)


def test_images_can_be_drawn_by_a_seed_of_their_own(tmp_path: Path) -> None:
    path = write_npz(tmp_path, val_images=None, val_labels=None)
    first, fifth = (config(path, seed=seed, imbalance_factor=2.0, val_from_train=0.25) for seed in (1, 5))
    seeded = fifth.model_copy(update={"dataset": fifth.dataset.model_copy(update={"seed": 1})})
    drawn, other, again = (load(drawing) for drawing in (first, fifth, seeded))
    for split in ("train", "val"):
        images, others, same = (getattr(data, split).images_NCHW for data in (drawn, other, again))
        np.testing.assert_array_equal(same, images)
        assert not np.array_equal(others, images)
