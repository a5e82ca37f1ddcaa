from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_files import arrays, config, gray, typed_window, write_image, write_npz
from PIL import Image

from rlcas.data import load, load_test
from rlcas.data.pixels import resize, windowed
from rlcas.errors import UserError


def test_a_window_is_mapped_linearly_and_clipped() -> None:
    values = np.array([[-5, 0, 50, 100, 300]])
    assert windowed(values, (0.0, 100.0)).tolist() == [[0, 0, 128, 255, 255]]
    assert windowed(values, (7.0, 7.0)).tolist() == [[0] * 5]


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "uint64"])
def test_wide_images_span_the_training_range(tmp_path: Path, dtype: str) -> None:
    found = arrays(dtype=dtype)
    data = load(config(write_npz(tmp_path, **found)))
    train = found["train_images"].astype(np.float64)
    low, high = train.min(), train.max()
    np.testing.assert_array_equal(data.train.images_NCHW[:, 0], np.rint(255 * (train - low) / (high - low)))
    test = np.clip((found["test_images"].astype(np.float64) - low) / (high - low), 0, 1)
    shown = load_test(config(f"npz:{tmp_path / 'set.npz'}"))[0].images_NCHW[:, 0]
    np.testing.assert_array_equal(shown, np.rint(255 * test))
    assert data.notes == (
        f"22 images have more than 8 bits: values {low:g}..{high:g} (the training images' range) "
        "are mapped linearly to 0..255",
    )


def test_a_window_in_the_settings_is_used_and_noted(tmp_path: Path) -> None:
    data = load(config(write_npz(tmp_path, **arrays(dtype="uint16")), window=(100, 1000)))
    assert "values 100..1000 (dataset.window) are mapped" in data.notes[0]
    assert data.train.images_NCHW.min() == 0 and data.train.images_NCHW.max() == 255


def test_a_window_is_required_without_training_images(tmp_path: Path) -> None:
    wide = {**arrays(dtype="uint16"), "train_images": None, "train_labels": None}
    name = write_npz(tmp_path, **wide)
    with pytest.raises(UserError, match=r"no training images to take the range from: set") as caught:
        load_test(config(name))
    window = typed_window(str(caught.value), 0, 4096)
    assert window == (0, 4096)
    assert load_test(config(name, window=window))[0].images_NCHW.max() > 200
    with pytest.raises(
        UserError, match=r"dataset.window \(5.0, 5.0\) is empty: write black, then a larger white"
    ):
        load_test(config(name, window=(5, 5)))


def test_shrinking_by_a_whole_factor_is_the_mean_of_the_area() -> None:
    image = gray(0, (8, 12))
    blocks = image.reshape(4, 2, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(np.asarray(resize(Image.fromarray(image), 4, 4)), blocks, atol=1)


def test_a_flat_image_stays_flat_and_an_enlarged_one_keeps_its_mean() -> None:
    assert np.unique(np.asarray(resize(Image.new("L", (5, 9), 77), 16, 4))).tolist() == [77]
    ramp = np.tile(np.arange(0, 160, 20, dtype=np.uint8), (8, 1))
    grown = np.asarray(resize(Image.fromarray(ramp), 16, 16)).astype(float)
    assert grown.shape == (16, 16) and abs(grown.mean() - ramp.mean()) < 1
    assert (np.diff(grown.mean(axis=0)) > 0).all()


@pytest.mark.parametrize(
    ("shape", "size_px", "note"),
    [
        ((8, 8), 4, "images are resized whole from 8x8 to 4x4 (area filter down, bicubic up)"),
        ((8, 8, 3), 16, "images are resized whole from 8x8 to 16x16 (area filter down, bicubic up)"),
        ((6, 9), 8, "from 6x9 to 8x8 (area filter down, bicubic up); the aspect ratio is not kept"),
        ((8, 8), 8, ""),
    ],
)
def test_resizing_is_noted(tmp_path: Path, shape: tuple[int, ...], size_px: int, note: str) -> None:
    data = load(config(write_npz(tmp_path, **arrays(shape=shape)), size_px=size_px))
    assert data.image_shape_CHW[1:] == (size_px, size_px)
    assert data.notes[0].endswith(note) if note else data.notes == ()


def test_gray_becomes_three_equal_channels_and_rgb_becomes_luma(tmp_path: Path) -> None:
    data = load(config(write_npz(tmp_path), channels=3))
    np.testing.assert_array_equal(
        data.train.images_NCHW, np.repeat(arrays()["train_images"][:, None], 3, axis=1)
    )
    assert data.notes == ("images are made RGB (three equal channels): dataset.channels is 3",)
    rgb = arrays(shape=(8, 8, 3))
    data = load(config(write_npz(tmp_path, **rgb), channels=1))
    luma = rgb["train_images"] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(data.train.images_NCHW[:, 0], luma, atol=1)
    assert data.notes == ("images are made gray (luma): dataset.channels is 1",)


def test_messages_name_the_first_image_of_each_size_and_kind(tmp_path: Path) -> None:
    """In the order of train, val, test: a later split's image does not take the place of an earlier one's."""
    for split in ("train", "val", "test"):
        for name in "ab":
            write_image(tmp_path / split / name / "0.png", gray(len(split)))
    write_image(tmp_path / "train" / "b" / "1.png", gray(1, (8, 9)))
    write_image(tmp_path / "test" / "b" / "1.png", gray(1, (9, 9)))
    with pytest.raises(UserError, match=r"mixes sizes, 8x8 \(train/a/0.png\) and 8x9 \(train/b/1.png\)"):
        load(config(f"folder:{tmp_path}"))
    write_image(tmp_path / "val" / "a" / "1.png", np.stack([gray(1)] * 3, axis=2))
    write_image(tmp_path / "test" / "a" / "1.png", np.stack([gray(1, (9, 9))] * 3, axis=2))
    with pytest.raises(UserError, match=r"mixes gray \(train/a/0.png\) and RGB \(val/a/1.png\)"):
        load(config(f"folder:{tmp_path}", size_px=8))
