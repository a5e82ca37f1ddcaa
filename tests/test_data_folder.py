from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from data_files import config, dicom, gray, typed_window, write_image
from PIL import Image

from rlcas.data import load, load_test
from rlcas.data.decode import decode
from rlcas.errors import UserError


def split_folder(root: Path, *, val: str = "val") -> str:
    for seed, split in enumerate(("train", val, "test")):
        for class_id, name in enumerate(("b", "a")):
            for i in range(3):
                write_image(root / split / name / f"{i}.png", gray(100 * seed + 10 * class_id + i))
    return f"folder:{root}"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("two\nlines", "has a line end or another character that cannot be printed: rename"),
        ("\x1b[31mred", "has a line end or another character that cannot be printed: rename"),
        ("\udce4", "has letters that this locale cannot read: set PYTHONUTF8=1"),
    ],
)
def test_a_class_whose_name_cannot_be_printed_is_refused(tmp_path: Path, name: str, fault: str) -> None:
    data = split_folder(tmp_path / "set")
    for split in ("train", "val", "test"):
        (tmp_path / "set" / split / "a").rename(tmp_path / "set" / split / name)
    for read in (load, load_test):
        with pytest.raises(UserError, match=rf"set: the class name '.*\\.*' {fault}"):
            read(config(data))


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_a_folder_with_splits_is_read_in_sorted_order(tmp_path: Path, val: str) -> None:
    name = split_folder(tmp_path / "set", val=val)
    write_image(tmp_path / "set" / "train" / "a" / ".hidden.png", gray(0))
    (tmp_path / "set" / "train" / "a" / "notes.txt").write_text("of no account")
    data = load(config(name))
    assert data.class_names == ("a", "b") and data.name == "set"
    assert data.train.labels_N.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(data.train.images_NCHW[:3, 0], [gray(10), gray(11), gray(12)])
    assert data.notes == ("left out, because they are not image files: 1 (train/a/notes.txt)",)
    test, names = load_test(config(name))
    assert names == ("a", "b") and len(test) == 6
    np.testing.assert_array_equal(test.images_NCHW[0, 0], gray(210))


def test_a_folder_of_classes_is_cut_7_1_2(tmp_path: Path) -> None:
    for class_id, name in enumerate("abc"):
        for i in range(10 * (class_id + 1)):
            write_image(tmp_path / name / f"{i:02}.jpg", gray(100 * class_id + i))
    data, (test, _) = load(config(f"folder:{tmp_path}")), load_test(config(f"folder:{tmp_path}"))
    counts = [part.class_counts(3).tolist() for part in (data.train, data.val, test)]
    assert counts == [[7, 14, 21], [1, 2, 3], [2, 4, 6]]
    cut = "cut from the source's 60 images, by images, stratified by class: train 42, val 6, test 12"
    assert data.notes == (cut,)
    parts = [{image.tobytes() for image in part.images_NCHW} for part in (data.train, data.val, test)]
    assert len(set.union(*parts)) == 60


MODES = {"bmp": ["L", "RGB", "RGBA", "P", "1"]}
"""Modes of pixels by file type: BMP has no gray with alpha and no 16 bits, PNG and TIFF have all."""
MODES |= {suffix: [*MODES["bmp"], "LA", "I;16"] for suffix in ("png", "tif")}


@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix in MODES for mode in MODES[suffix]])
def test_every_kind_of_pixels_is_read(tmp_path: Path, suffix: str, mode: str) -> None:
    wide = mode == "I;16"
    for split in ("train", "val", "test"):
        for c, name in enumerate("ab"):
            image = Image.fromarray(gray(100 * len(split) + c, dtype="uint16" if wide else "uint8"))
            path = tmp_path / split / name / f"0.{suffix}"
            path.parent.mkdir(parents=True)
            if mode == "P":
                image = Image.merge("RGB", [image, image.rotate(90), image]).quantize()
            (image if wide else image.convert(mode)).save(path)
    data = load(config(f"folder:{tmp_path}"))
    assert data.image_shape_CHW[0] == (3 if mode in ("RGB", "RGBA", "P") else 1)
    if mode in ("L", "RGB", "RGBA", "LA"):
        np.testing.assert_array_equal(data.train.images_NCHW[0, 0], gray(500))
    assert bool(data.notes) == wide


def test_a_turned_photograph_is_set_upright(tmp_path: Path) -> None:
    name = split_folder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gray(10)).save(tmp_path / "train" / "a" / "0.png", exif=exif)
    np.testing.assert_array_equal(load(config(name)).train.images_NCHW[0, 0], np.rot90(gray(10), -1))


def test_a_faulty_folder_is_an_error_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none is not a folder: check the path after folder:"):
        load(config(f"folder:{tmp_path / 'none'}"))
    with pytest.raises(UserError, match="has no class folders"):
        load(config(f"folder:{tmp_path}"))
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="has no images to cut into train, val, test"):
        load(config(f"folder:{tmp_path}"))
    name = split_folder(tmp_path / "set")
    (tmp_path / "set" / "valid").mkdir()
    with pytest.raises(UserError, match="has val and valid, which are one split"):
        load(config(name))


def test_a_class_without_training_images_is_named(tmp_path: Path) -> None:
    name = split_folder(tmp_path)
    write_image(tmp_path / "val" / "rare" / "0.png", gray(7))
    with pytest.raises(UserError, match="has no training image of class 'rare'"):
        load(config(name))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    name = split_folder(tmp_path)
    path = tmp_path / "test" / "a" / "1.png"
    whole = path.read_bytes()
    for damaged in (b"no image", b"", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"test/a/1.png cannot be read as an image") as caught:
            load(config(name))
        assert "\n" not in str(caught.value)
    path.unlink()
    frames = [Image.fromarray(gray(i)) for i in range(2)]
    frames[0].save(path.with_suffix(".tif"), save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=r"1.tif has 2 pages: save each page as a file"):
        load(config(name))
    Image.fromarray(np.zeros((8, 8), np.float32)).save(path.with_suffix(".tif"))
    with pytest.raises(UserError, match=r"1.tif has floating-point pixels: save it with 8 or 16 bits"):
        load(config(name))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "dcm"])
def test_a_file_altered_or_truncated_anywhere_is_read_or_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"damaged.{suffix}"
    whole = (dicom if suffix == "dcm" else write_image)(path, gray(1, (16, 16))).read_bytes()
    rng, num_refused = np.random.default_rng(0), 0
    for trial in range(200):
        at = int(rng.integers(min(len(whole), 400)))
        path.write_bytes(whole[:at] + (b"" if trial % 5 == 0 else rng.bytes(1) + whole[at + 1 :]))
        try:
            assert decode(path, None).ndim in (2, 3)
        except UserError as error:
            num_refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert num_refused > 20


def test_mixed_sizes_and_mixed_channels_name_two_files_and_the_setting(tmp_path: Path) -> None:
    name = split_folder(tmp_path)
    write_image(tmp_path / "train" / "b" / "2.png", gray(1, (9, 8)))
    with pytest.raises(
        UserError, match=r"8x8 \(train/a/0.png\) and 9x8 \(train/b/2.png\).*--dataset.size_px 64"
    ):
        load(config(name))
    assert load(config(name, size_px=12)).image_shape_CHW == (1, 12, 12)
    write_image(tmp_path / "train" / "b" / "2.png", np.stack([gray(i) for i in range(3)], axis=2))
    with pytest.raises(
        UserError, match=r"gray \(train/a/0.png\) and RGB \(train/b/2.png\).*--dataset.channels 1 or 3"
    ):
        load(config(name))
    for channels in (1, 3):
        assert load(config(name, channels=channels)).image_shape_CHW == (channels, 8, 8)


def dicom_folder(root: Path, stored: np.ndarray, **tags: object) -> str:
    for split in ("train", "val", "test"):
        for name in "ab":
            dicom(root / split / name / "0.dcm", stored, **tags)
    return f"folder:{root}"


def test_dicom_is_rescaled_windowed_and_inverted(tmp_path: Path) -> None:
    stored = np.arange(64, dtype=np.int16).reshape(8, 8) * 40
    values = stored * 2.0 - 1024
    expected = np.rint(255 * np.clip((values + 100) / 500, 0, 1))
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -1024}
    name = dicom_folder(tmp_path / "a", stored, **rescale)
    shown = load(config(name, window=(-100, 400))).train.images_NCHW[0, 0]
    np.testing.assert_array_equal(shown, expected)
    name = dicom_folder(tmp_path / "b", stored, **rescale, PhotometricInterpretation="MONOCHROME1")
    shown = load(config(name, window=(-100, 400))).train.images_NCHW[0, 0]
    np.testing.assert_array_equal(shown, 255 - expected)


def test_dicom_without_any_window_spans_the_training_range(tmp_path: Path) -> None:
    stored = np.arange(64, dtype=np.int16).reshape(8, 8) * 40 - 500
    data = load(config(dicom_folder(tmp_path / "a", stored)))
    np.testing.assert_array_equal(data.train.images_NCHW[0, 0], np.rint(np.arange(64) * 255 / 63).reshape(8, 8))
    assert "values -500..2020 (the training images' range) are mapped linearly" in data.notes[1]
    name = dicom_folder(tmp_path / "b", stored, PhotometricInterpretation="MONOCHROME1")
    inverted = load(config(name)).train.images_NCHW[0, 0]
    np.testing.assert_array_equal(inverted, 255 - data.train.images_NCHW[0, 0])


def test_dicom_has_its_own_window_which_a_setting_overrides(tmp_path: Path) -> None:
    stored = np.arange(64, dtype=np.uint16).reshape(8, 8)
    name = dicom_folder(tmp_path, stored, WindowCenter=[32, 1], WindowWidth=[41, 2])
    own = load(config(name))
    expected = np.rint(255 * np.clip((stored - 11.5) / 40, 0, 1))  # 32 - 0.5 -+ 40 / 2
    np.testing.assert_array_equal(own.train.images_NCHW[0, 0], expected)
    assert own.notes[0].startswith("DICOM files are shown with their own window")
    assert typed_window(own.notes[0], -100, 400) == (-100, 400)
    set_for_all = load(config(name, window=(0, 63)))
    np.testing.assert_array_equal(set_for_all.train.images_NCHW[0, 0], np.rint(stored * 255 / 63))


@pytest.mark.parametrize(
    ("ids", "shown"),
    [(4, "DICOM headers name 4 patients (PatientID) for 16 images"), (1, ""), (16, ""), (0, "")],
)
def test_patients_in_dicom_headers_are_reported_where_none_are_known(
    tmp_path: Path, ids: int, shown: str
) -> None:
    for i in range(16):
        dicom(tmp_path / "ab"[i // 8] / f"{i}.dcm", gray(i), PatientID=f"p{i % ids}" if ids else "")
    notes = load(config(f"folder:{tmp_path}")).notes
    assert [note for note in notes if "PatientID" in note][:1] == [
        note for note in notes if shown and shown in note
    ]
    rows = [f"{'ab'[i // 8]}/{i}.dcm,{'ab'[i // 8]},q{i % 8}" for i in range(16)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,patient_id", *rows]))
    assert not any("PatientID" in note for note in load(config(f"csv:{tmp_path / 't.csv'}")).notes)


def test_eight_bit_and_rgb_dicom_keep_their_values(tmp_path: Path) -> None:
    data = load(config(dicom_folder(tmp_path / "gray", gray(1))))
    np.testing.assert_array_equal(data.train.images_NCHW[0, 0], gray(1))
    name = dicom_folder(tmp_path / "inverted", gray(1), PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(load(config(name)).train.images_NCHW[0, 0], 255 - gray(1))
    rgb = np.stack([gray(i) for i in range(3)], axis=2)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    data = load(config(dicom_folder(tmp_path / "rgb", rgb, **tags)))
    np.testing.assert_array_equal(data.train.images_NCHW[0].transpose(1, 2, 0), rgb)


def test_an_error_without_a_message_is_named_by_its_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the MemoryError of a DICOM header with lengths of gigabytes, which fuzzing found."""
    name = dicom_folder(tmp_path, gray(1))

    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("pydicom.dcmread", exhausted)
    with pytest.raises(UserError, match=r"cannot be read as an image \(MemoryError\): replace or remove it$"):
        load(config(name))


def test_faulty_dicom_is_an_error_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = dicom_folder(tmp_path, gray(1))
    path = tmp_path / "val" / "a" / "0.dcm"
    whole = path.read_bytes()
    path.write_bytes(b"not DICOM")
    with pytest.raises(UserError, match=r"val/a/0.dcm is not a DICOM file, or damaged: replace or remove it"):
        load(config(name))
    path.write_bytes(whole[:-20])
    with pytest.raises(
        UserError, match=r"val/a/0.dcm cannot be read as an image .*: replace or remove it"
    ) as caught:
        load(config(name))
    assert "\n" not in str(caught.value)
    dicom(path, np.concatenate([gray(1), gray(2)]), NumberOfFrames=2, Rows=8)
    with pytest.raises(UserError, match=r"pixels of shape \(2, 8, 8\): save one gray or 8-bit RGB frame"):
        load(config(name))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r"needs pydicom: pip install rlcas\[dicom\]"):
        load(config(name))
