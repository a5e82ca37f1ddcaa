"""Test images from elsewhere: tested whole, matched by class names, without what the run was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_files import arrays, config, gray, write_image, write_npz

from rlcas.data import load, load_foreign_test, load_test
from rlcas.data.class_match import in_class_order
from rlcas.data.source import RawSplit
from rlcas.errors import UserError
from rlcas.types import SplitRecord

KNOWN = ("benign", "malignant")


def write_set(root: Path, *, classes: tuple[str, ...] = KNOWN, per_class: int = 10, seed: int = 0) -> str:
    for class_id, name in enumerate(classes):
        for i in range(per_class):
            write_image(root / name / f"{i:02d}.png", gray(seed + 1000 * class_id + i))
    return f"folder:{root}"


def record_of(name: str) -> SplitRecord:
    record = load(config(name)).record
    assert record is not None
    return record


def split_of(labels: list[int]) -> RawSplit:
    return RawSplit(labels_N=np.array(labels), names=[f"{i}.png" for i in range(len(labels))], open_images=list)


def test_a_set_without_splits_is_tested_whole(tmp_path: Path) -> None:
    record = record_of(write_set(tmp_path / "own"))
    foreign = write_set(tmp_path / "foreign", per_class=13, seed=100)
    test, notes = load_foreign_test(config(foreign), KNOWN, record)
    assert len(test) == 26 and test.labels_N.tolist() == [0] * 13 + [1] * 13
    assert notes == (f"{tmp_path / 'foreign'} has no splits: all of its 26 images are tested",)


def test_of_a_set_with_splits_the_test_images_are_tested(tmp_path: Path) -> None:
    test, notes = load_foreign_test(config(write_npz(tmp_path)), KNOWN, record_of(write_set(tmp_path / "own")))
    assert np.array_equal(test.images_NCHW[:, 0], arrays()["test_images"]) and notes == ()
    parts = write_npz(tmp_path, test_images=None, test_labels=None)
    with pytest.raises(UserError, match=r"set.npz has no test split, only train, val: name a source"):
        load_foreign_test(config(parts), KNOWN, None)


def test_pictures_of_training_are_left_out_and_the_own_set_elsewhere_is_known(tmp_path: Path) -> None:
    own = write_set(tmp_path / "own", per_class=20)
    record, (own_test, _) = record_of(own), load_test(config(own))
    moved = write_set(tmp_path / "moved", per_class=20)
    test, notes = load_foreign_test(config(moved), KNOWN, record)
    assert np.array_equal(test.images_NCHW, own_test.images_NCHW) and len(test) == 8
    assert "holds the run's own test images: just these 8 are tested" in notes[1]
    # Without one of the test images it is another set.
    (tmp_path / "moved" / record.parts["test"].names[0]).unlink()
    test, notes = load_foreign_test(config(moved), KNOWN, record)
    assert len(test) == 7
    assert notes[1].startswith(
        "left out of the test, because the run was trained on these pictures: 32 (benign/"
    )
    for name in record.parts["test"].names[1:]:
        (tmp_path / "moved" / name).unlink()
    with pytest.raises(UserError, match="the run was trained on all of its 32 images"):
        load_foreign_test(config(moved), KNOWN, record)


def test_a_run_without_a_record_says_that_nothing_was_compared(tmp_path: Path) -> None:
    _, notes = load_foreign_test(config(write_set(tmp_path / "own")), KNOWN, None)
    assert notes[1].startswith("the run was begun before 0.2 and does not list its images")


def test_wide_values_are_shown_by_the_runs_window(tmp_path: Path) -> None:
    record = SplitRecord(
        class_names=KNOWN, parts=record_of(write_set(tmp_path / "own")).parts, window=(0, 1000)
    )
    wide = arrays(dtype="uint16")
    path = tmp_path / "wide.npz"
    np.savez(path, test_images=wide["test_images"], test_labels=wide["test_labels"])
    test, notes = load_foreign_test(config(f"npz:{path}"), KNOWN, record)
    expected = np.rint(255 * np.clip(wide["test_images"] / 1000, 0, 1)).astype(np.uint8)
    assert np.array_equal(test.images_NCHW[:, 0], expected)
    assert "values 0..1000 (the window of the run's training images)" in notes[0]


@pytest.mark.parametrize(
    ("found", "known", "labels", "expected"),
    [
        (("a", "b", "c"), ("a", "b", "c"), [0, 1, 2], [0, 1, 2]),
        (("a", "c"), ("a", "b", "c"), [0, 1, 1], [0, 2, 2]),
        (("c", "b", "a"), ("a", "b", "c"), [0, 1, 2], [2, 1, 0]),
        (None, ("a", "b", "c"), [2, 0, 1], [2, 0, 1]),
        # Of a run that still sorted numbers as text.
        (("0", "1", "2", "10"), ("0", "1", "10", "2"), [0, 1, 2, 3], [0, 1, 3, 2]),
        (("0.0", "1.0", "10.0"), ("0", "1", "10"), [0, 1, 2], [0, 1, 2]),
        (("00", "01"), ("0", "1"), [0, 1], [0, 1]),
        # Numbers alone, and classes that are numbers: by value.
        (None, ("1", "2", "10"), [1, 10, 2], [0, 2, 1]),
        (None, ("0", "1", "10", "2"), [2, 10], [3, 2]),
        # A class without images is nobody's.
        (("a", "unknown"), ("a", "b"), [0, 0], [0, 0]),
    ],
)
def test_labels_follow_the_names_of_the_classes(found, known, labels: list[int], expected: list[int]) -> None:
    assert in_class_order(split_of(labels), found, known, "here").tolist() == expected


def test_a_class_that_the_classifier_does_not_know_is_refused_by_its_name() -> None:
    with pytest.raises(
        UserError, match=r"^here has classes that the classifier does not know: 1 \('d'\); it knows a"
    ):
        in_class_order(split_of([1, 0]), ("a", "d"), ("a", "b"), "here")
    with pytest.raises(UserError, match=r"does not know: 1 \('0'\); it knows 1, 2:"):
        in_class_order(split_of([1, 0]), None, ("1", "2"), "here")
    with pytest.raises(UserError, match=r"does not know: 2 \('0', '1'\)"):
        in_class_order(split_of([1, 0]), ("0", "1"), ("a", "b"), "here")
    with pytest.raises(
        UserError, match=r"^here has label 2 \(1.png\), but the classifier knows only 2 classes"
    ):
        in_class_order(split_of([0, 2]), None, ("a", "b"), "here")


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set/benign").mkdir(parents=True)
    with pytest.raises(UserError, match="has no test images"):
        load_foreign_test(config(f"folder:{tmp_path / 'set'}"), KNOWN, None)
