from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_synth import squares

from rlcas.errors import UserError
from synth.sketch import SKETCHES, half_windows, ratio_of_averages

WEIGHT_FREE = [name for name, entry in SKETCHES.items() if "weights" not in inspect.signature(entry).parameters]

STEP_IMAGE = np.full((1, 1, 24, 24), 200, np.uint8)
STEP_IMAGE[..., 12:] = 50


@pytest.mark.parametrize("name", WEIGHT_FREE)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_sketch_has_the_documented_kind_shape_and_range(name: str, channels: int) -> None:
    images = squares(3, channels=channels)
    maps = SKETCHES[name]()(images)
    assert isinstance(maps, np.ndarray) and maps.dtype == np.float32 and maps.shape == (3, 1, 20, 20)
    assert maps.min() >= 0 and maps.max() <= 1 and maps.std() > 0.01
    from_torch = SKETCHES[name]()(torch.from_numpy(images))
    assert isinstance(from_torch, torch.Tensor)
    np.testing.assert_array_equal(from_torch.numpy(), maps)


@pytest.mark.parametrize("name", WEIGHT_FREE)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_an_entry_takes_images_as_its_default_extractor_does(name: str, kind: Callable[..., Any]) -> None:
    images = kind(squares(2))
    maps = SKETCHES[name](images)
    assert type(maps) is type(images)
    np.testing.assert_array_equal(maps, SKETCHES[name]()(images))


def test_settings_of_an_entry_change_the_extractor_and_are_in_its_signature() -> None:
    entry, images = SKETCHES["ratio_of_averages"], squares(2)
    wide = entry(radius_px=5.0)(images)
    np.testing.assert_array_equal(wide, ratio_of_averages(radius_px=5.0)(images))
    np.testing.assert_array_equal(wide, entry(images, radius_px=5.0))
    assert np.abs(wide - entry(images)).max() > 0.05
    assert list(inspect.signature(entry).parameters) == ["radius_px", "num_orientations", "floor"]


@pytest.mark.parametrize("name", WEIGHT_FREE)
def test_a_flat_image_has_no_edges_and_a_step_has_its_edge_where_it_is(name: str) -> None:
    sketch = SKETCHES[name]()
    np.testing.assert_allclose(sketch(np.full((1, 1, 24, 24), 90, np.uint8)), 0, atol=1e-5)
    row = sketch(STEP_IMAGE)[0, 0, 12]
    assert set(np.argsort(row)[-2:]) == {11, 12}
    assert row[11:13].min() > 0.3 and row[:8].max() < 1e-4 and row[16:].max() < 1e-4


@pytest.mark.parametrize("name", WEIGHT_FREE)
def test_the_sketch_of_a_mirrored_image_is_the_mirrored_sketch(name: str) -> None:
    images, sketch = squares(2), SKETCHES[name]()
    np.testing.assert_allclose(sketch(images[..., ::-1]), sketch(images)[..., ::-1], atol=1e-5)


def test_the_ratio_of_averages_is_one_minus_the_smaller_ratio_of_the_two_sides() -> None:
    image = squares(1, side_px=16)[0, 0] / 255
    radius, floor, y, x = 2.0, 0.02, 7, 8
    ratios = []
    for angle in np.arange(8) * np.pi / 8:
        sums = np.zeros((2, 2))
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                across = dx * np.cos(angle) + dy * np.sin(angle)
                if abs(across) > 1e-9:
                    weight = np.exp(-(dx**2 + dy**2) / (2 * (radius / 2) ** 2))
                    sums[int(across > 0)] += weight * image[y + dy, x + dx], weight
        low, high = sorted(sums[:, 0] / sums[:, 1] + floor)
        ratios.append(1 - low / high)
    found = ratio_of_averages(radius_px=radius)((image * 255).round().astype(np.uint8)[None, None])
    assert found[0, 0, y, x] == pytest.approx(max(ratios), abs=1e-5)


def test_false_edges_of_the_ratio_do_not_depend_on_brightness_but_those_of_a_gradient_do() -> None:
    speckle = np.random.default_rng(0).gamma(8.0, 1 / 8.0, (1, 1, 64, 64))
    dim, bright = ((level * speckle).round().astype(np.uint8) for level in (25, 100))
    mean = {name: [SKETCHES[name]()(images).mean() for images in (dim, bright)] for name in WEIGHT_FREE}
    assert mean["ratio_of_averages"][1] / mean["ratio_of_averages"][0] < 1.3
    assert mean["scharr"][1] / mean["scharr"][0] > 3


def test_half_windows_sum_to_one_and_do_not_overlap() -> None:
    windows = half_windows(3.5, 8)
    assert windows.shape == (16, 1, 9, 9)
    torch.testing.assert_close(windows.sum(dim=(1, 2, 3)), torch.ones(16))
    assert (windows[:8] * windows[8:]).abs().max() == 0


def test_scharr_of_a_full_step_is_one() -> None:
    image = np.zeros((1, 1, 16, 16), np.uint8)
    image[..., 8:] = 255
    assert SKETCHES["scharr"]()(image)[0, 0, 8, 7:9].tolist() == [1, 1]


@pytest.mark.parametrize("images", [np.zeros((2, 1, 8, 8), np.float32), np.zeros((8, 8), np.uint8)])
def test_anything_but_a_batch_of_uint8_images_is_refused(images: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"made of uint8 images \[N, 1 or 3, H, W\], not of torch"):
        SKETCHES["scharr"]()(images)
