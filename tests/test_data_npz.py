from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_files import SHARES, arrays, config, write_npz

from rlcas.config import RunConfig
from rlcas.data import DATASETS, load, load_test, require_test
from rlcas.data.npz import open_npz
from rlcas.data.source import Source
from rlcas.errors import UserError


def test_pixels_and_labels_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = arrays()
    data = load(config(write_npz(tmp_path)))
    np.testing.assert_array_equal(data.train.images_NCHW[:, 0], written["train_images"])
    np.testing.assert_array_equal(data.val.labels_N, written["val_labels"][:, 0])
    assert (data.name, data.class_names, data.notes) == ("set", ("0", "1"), ())
    assert data.train.images_NCHW.dtype == np.uint8 and data.train.labels_N.dtype == np.int64


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3), (6, 9)])
def test_gray_one_channel_rgb_and_oblong_images_are_accepted(tmp_path: Path, shape: tuple[int, ...]) -> None:
    data = load(config(write_npz(tmp_path, **arrays(shape=shape))))
    channels = 3 if shape[-1] == 3 else 1
    assert data.image_shape_CHW == (channels, *shape[:2])


def test_an_empty_id_is_a_patient_of_its_own(tmp_path: Path) -> None:
    ids = {
        f"{split}_patients": np.array([f"{split}0", "", " "] * (count // 3) + [""] * (count % 3))
        for split, count in SHARES.items()
    }
    data = load(config(write_npz(tmp_path, **ids)))
    assert data.train.patients_N is not None and len(set(data.train.patients_N)) == 1 + 8
    assert not any("patients in both" in note for note in data.notes)


def test_class_names_and_patients_are_read_from_the_file(tmp_path: Path) -> None:
    name = write_npz(
        tmp_path,
        class_names=np.array(["benign", "malignant"]),
        train_patients=np.arange(12) // 2,
        val_patients=np.array(["a", "b", "c", "d"]),
        test_patients=np.array([5, 50, 51, 52, 53, 54]),
    )
    data = load(config(name))
    assert data.class_names == ("benign", "malignant")
    assert data.train.patients_N is not None and data.train.patients_N.tolist()[:3] == ["0", "0", "1"]
    assert "patients in both train and test, a leak: 1 (5)" in data.notes


def test_test_arrays_alone_are_enough_to_evaluate(tmp_path: Path) -> None:
    path = tmp_path / "test_only.npz"
    images, labels = arrays()["test_images"], np.array([0, 1, 0, 1, 1, 0])
    np.savez(path, test_images=images, test_labels=labels)
    test, names = load_test(config(f"npz:{path}"))
    np.testing.assert_array_equal(test.images_NCHW[:, 0], images)
    assert names == ("0", "1")
    assert load_test(config(f"npz:{path}", val_from_train=0.1), num_classes=4)[1] == ("0", "1", "2", "3")
    with pytest.raises(UserError, match=r"label 1 of test 1 is out of range 0\.\.0"):
        load_test(config(f"npz:{path}"), num_classes=1)
    with pytest.raises(UserError, match="has no train split: add it"):
        load(config(f"npz:{path}"))


def test_the_test_images_of_training_data_do_not_need_the_others(tmp_path: Path) -> None:
    name = write_npz(tmp_path, train_images=None, train_labels=None, val_images=None, val_labels=None)
    assert len(load_test(config(name))[0]) == 6


def test_missing_test_images_are_the_same_error_before_training(tmp_path: Path) -> None:
    name = write_npz(tmp_path, test_images=None, test_labels=None)
    said = []
    for check in (require_test, load_test):
        with pytest.raises(UserError, match=r"has no test split: .*--dataset\.test_from_train") as caught:
            check(config(name))
        said.append(str(caught.value))
    assert said[0] == said[1]
    require_test(config(name, test_from_train=0.2))
    write_npz(tmp_path, test_images=np.zeros((0, 8, 8), np.uint8), test_labels=np.zeros(0, int))
    with pytest.raises(UserError, match="has no test images"):
        require_test(config(name))


def test_the_presence_of_test_images_is_checked_without_opening_one(tmp_path: Path) -> None:
    poisoned = write_npz(tmp_path, test_images=np.array([{}] * 6, object))
    require_test(config(poisoned))
    with pytest.raises(UserError, match="test_images is a pickle"):
        load_test(config(poisoned))


@pytest.mark.parametrize("progress", [False, True])
def test_readers_get_whether_to_show_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progress: bool
) -> None:
    shown_to = []

    def reader(settings: RunConfig, shown: bool) -> Source:
        shown_to.append(shown)
        return open_npz(tmp_path / "set.npz")

    write_npz(tmp_path)
    monkeypatch.setitem(DATASETS, "own", reader)
    load_test(config("own"), progress=progress)
    load(config("own"), progress=progress)
    assert shown_to == [progress] * 2


LABELS = arrays()["train_labels"]
WRONG = {
    "negative": (dict(train_labels=np.where(LABELS == 1, -1, 0)), "train_labels is negative at index 1"),
    "float": (dict(train_labels=LABELS.astype(float)), "train_labels is float64: save labels as integers"),
    "nan_label": (dict(train_labels=np.full(12, np.nan)), "train_labels is float64 with NaN"),
    "multi_label": (dict(train_labels=np.ones((12, 3), int)), "multi-label data are not supported"),
    "deep_labels": (dict(train_labels=np.ones((12, 1, 1), int)), r"shape \(12, 1, 1\): save one integer"),
    "gaps": (
        dict(train_labels=np.where(LABELS == 1, 9, 0)),
        "image of class '1', '2', '3', '4', '5' and 3 more: add",
    ),
    "val_label": (dict(val_labels=np.array([0, 1, 2, 0])), r"label 2 of val 2 is out of range 0\.\.1"),
    "empty_class": (dict(train_labels=LABELS * 2, val_labels=None, val_images=None), "of class '1': add one"),
    "one_class": (dict(train_labels=LABELS * 0), "has only one class, '0': at least two are needed"),
    "lengths": (dict(train_labels=LABELS[:5]), "has 12 images, but train_labels has 5"),
    "no_labels": (dict(val_labels=None), "lacks val_labels"),
    "float_images": (dict(train_images=np.zeros((12, 8, 8))), "is float64: images must be uint8 or wider"),
    "nan": (dict(train_images=np.full((12, 8, 8), np.nan)), "train_images is float64 with NaN"),
    "bool": (dict(train_images=np.zeros((12, 8, 8), bool)), "train_images is bool: save images as uint8"),
    "channels_first": (
        dict(train_images=np.zeros((12, 3, 8, 8), np.uint8)),
        r"save \[N, H, W\] or \[N, H, W, 3\]",
    ),
    "flat": (dict(train_images=np.zeros((12, 64), np.uint8)), r"has shape \(12, 64\)"),
    "shapes": (dict(val_images=np.zeros((4, 9, 8), np.uint8)), "8x8 .train 0. and 9x8 .val 0.: .*size_px 64"),
    "modes": (
        dict(val_images=np.zeros((4, 8, 8, 3), np.uint8)),
        "gray .train 0. and RGB .val 0.: .*channels 1 or 3",
    ),
    "no_images": (
        dict(train_images=np.zeros((0, 8, 8), np.uint8), train_labels=np.zeros(0, int)),
        "has no train images",
    ),
    "no_val": (
        dict(val_images=np.zeros((0, 8, 8), np.uint8), val_labels=np.zeros(0, int)),
        "has no val images",
    ),
    "object": (dict(train_images=np.array([{}] * 12, object)), "train_images is a pickle .* never loaded"),
    "object_labels": (dict(train_labels=np.array([0, "a"] * 6, object)), "train_labels is a pickle"),
    "patients": (dict(train_patients=np.arange(3)), "train_patients has 3 ids, but train_labels has 12"),
    "float_ids": (dict(train_patients=np.zeros(12)), "train_patients is float64: save ids as text or integers"),
    "line_end": (
        dict(class_names=np.array(["a\n", "b"])),
        r"set.npz: the class name 'a\\n' has a line end or another character that cannot be printed: rename the class",
    ),
    "class_names": (dict(class_names=np.arange(2)), "class_names is int64 .*: save one text for each class"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_faulty_array_is_an_error_of_one_line_that_names_file_and_fix(tmp_path: Path, fault: str) -> None:
    changes, message = WRONG[fault]
    if fault == "empty_class":
        changes = {**changes, "val_images": arrays()["val_images"], "val_labels": np.array([0, 2, 0, 2])}
    with pytest.raises(UserError, match=message) as caught:
        load(config(write_npz(tmp_path, **changes)))
    assert "set.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.npz is not a file: check the path"):
        load(config(f"npz:{tmp_path / 'none.npz'}"))
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(UserError, match="is not an npz file, or is truncated: download it again"):
        load(config(f"npz:{tmp_path / 'array.npy'}"))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(UserError, match=re.escape("has none of train_images, val_images, test_images")):
        load(config(f"npz:{tmp_path / 'other.npz'}"))


def test_a_member_that_is_not_an_array_is_never_unpickled(tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "pickle.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images", pickle.dumps([1, 2]))
        archive.writestr("train_labels", pickle.dumps([1, 2]))
    with pytest.raises(UserError, match="train_labels is not a NumPy array"):
        load(config(f"npz:{path}"))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_altered_or_cut_anywhere_is_refused_or_reads_the_same(tmp_path: Path, compressed: bool) -> None:
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "whole.npz", **arrays())
    whole, data = (tmp_path / "whole.npz").read_bytes(), load(config(f"npz:{tmp_path / 'whole.npz'}"))
    rng, path, num_refused = np.random.default_rng(0), tmp_path / "damaged.npz", 0
    for trial in range(120):
        at = int(rng.integers(len(whole)))
        damaged = whole[:at] if trial % 3 == 0 else whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
        path.write_bytes(damaged)
        try:
            found = load(config(f"npz:{path}"))
            np.testing.assert_array_equal(found.train.images_NCHW, data.train.images_NCHW)
        except UserError as error:
            num_refused += 1
            assert "damaged.npz" in str(error) and "\n" not in str(error)
    assert num_refused > 60


def test_a_class_without_validation_images_is_named_in_a_note(tmp_path: Path) -> None:
    labels = np.zeros_like(arrays()["val_labels"])
    data = load(config(write_npz(tmp_path, class_names=np.array(["benign", "rare"]), val_labels=labels)))
    assert data.notes[-1] == (
        "no validation image is of class 'rare': macro figures are over the other classes; F1 and precision count "
        "'rare' as 0, where it is predicted"
    )


def test_official_breastmnist_has_one_image_twice_with_conflicting_labels(real_data: Path) -> None:
    data = load(config(f"npz:{real_data / 'breastmnist.npz'}"))
    assert data.train.class_counts(2).tolist() == [147, 399] and len(data.val) == 78
    assert data.notes == (
        "identical pictures in train and test: 1 (train 115 = test 76); "
        "of them with conflicting labels: 1 (train 115 = test 76)",
    )


def test_a_real_rgb_long_tail_is_read_completely(real_data: Path) -> None:
    data = load(config(f"npz:{real_data / 'bloodlt8.npz'}"))
    assert data.train.class_counts(8).tolist() == [1679, 977, 565, 325, 186, 107, 61, 35]
    assert data.image_shape_CHW == (3, 28, 28) and data.notes == ()


def test_an_end_record_of_several_disks_is_no_npz_file(tmp_path: Path) -> None:
    write_npz(tmp_path)
    path = tmp_path / "set.npz"
    whole = path.read_bytes()
    # The locator of a zip64 end record, before the end record of 22 bytes: two disks.
    path.write_bytes(whole[:-22] + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 2) + whole[-22:])
    with pytest.raises(UserError, match=r"set.npz is not an npz file, or is truncated: download it again"):
        load(config(f"npz:{path}"))
