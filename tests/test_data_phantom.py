from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_files import config

from rlcas.data import load, load_test
from rlcas.data.phantom import SUBTYPES, draw_phantom, phantom_counts
from rlcas.data.speckle import NUM_LOOKS, b_mode
from rlcas.errors import UserError

SPLIT = (0.7, 0.1, 0.2)


def test_the_long_tail_of_the_paper_by_hand() -> None:
    counts_SC = phantom_counts(5622, 47.98, SPLIT)
    assert counts_SC.sum(axis=1).tolist() == [3935, 562, 1125]
    assert counts_SC[0, 0] == round(47.98 * counts_SC[0, -1]) == 1679
    ratios = counts_SC[0, :-1] / counts_SC[0, 1:]
    np.testing.assert_allclose(ratios, 47.98 ** (1 / 7), rtol=0.04)


@pytest.mark.parametrize("num_images", [80, 137, 800, 1200])
@pytest.mark.parametrize("imbalance", [1.0, 10.0, 47.98])
def test_every_split_has_every_class_and_train_the_ratio(num_images: int, imbalance: float) -> None:
    counts_SC = phantom_counts(num_images, imbalance, SPLIT)
    assert counts_SC.sum() == num_images and counts_SC.min() >= 1
    assert counts_SC[0, 0] == round(imbalance * counts_SC[0, -1])
    assert (np.diff(counts_SC, axis=1) <= 1).all()


def test_too_few_phantoms_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"num_images 60 is too few for 8 classes .*imbalance 47.98: raise the first"
    ):
        phantom_counts(60, 47.98, SPLIT)


def test_a_phantom_depends_on_seed_class_and_index_alone() -> None:
    few = load(config("phantom", phantom={"num_images": 80, "size_px": 16}, seed=3))
    more = load(config("phantom", phantom={"num_images": 120, "size_px": 16, "imbalance": 5}, seed=3))
    np.testing.assert_array_equal(few.train.images_NCHW[0, 0], draw_phantom(3, 0, 0, 16))
    first_of_class_4 = [int(np.argmax(data.train.labels_N == 4)) for data in (few, more)]
    np.testing.assert_array_equal(
        few.train.images_NCHW[first_of_class_4[0]], more.train.images_NCHW[first_of_class_4[1]]
    )
    drawn = {draw_phantom(seed, c, i, 16).tobytes() for seed in (0, 1) for c in (0, 1) for i in (0, 1)}
    assert len(drawn) == 8


def test_splits_of_phantoms_share_no_picture() -> None:
    settings = config("phantom", phantom={"num_images": 200, "size_px": 16})
    data, (test, names) = load(settings), load_test(settings)
    assert data.notes == () and names == data.class_names == tuple(subtype.name for subtype in SUBTYPES)
    parts = [image.tobytes() for part in (data.train, data.val, test) for image in part.images_NCHW]
    assert len(set(parts)) == 200


def test_phantoms_come_in_any_size_and_colour() -> None:
    data = load(config("phantom", phantom={"num_images": 80, "size_px": 24}, channels=3, size_px=48))
    assert data.image_shape_CHW == (3, 48, 48)


def envelope_level(num_images: int) -> np.ndarray:
    """Return uint8 images of even tissue in the middle of the gray scale."""
    even = np.full((64, 64), -20.0, np.float64)
    rng = np.random.default_rng(0)
    return np.stack([b_mode(even, np.zeros_like(even), rng) for _ in range(num_images)]).astype(float)


def test_speckle_of_even_tissue_has_the_spread_of_log_compressed_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of a gamma variable of L looks has variance ψ'(L); without averaging to pixels it is exact."""
    from rlcas.data import speckle

    monkeypatch.setattr(speckle, "OVERSAMPLING", 1)
    level_db = envelope_level(40) * speckle.DYNAMIC_RANGE_DB / 255
    trigamma = np.pi**2 / 6 - sum(1 / k**2 for k in range(1, NUM_LOOKS))
    expected_db = 10 / np.log(10) * np.sqrt(trigamma)
    assert abs(level_db.std() / expected_db - 1) < 0.03


def test_a_decibel_of_tissue_or_of_gain_is_a_decibel_of_gray() -> None:
    from rlcas.data.speckle import DYNAMIC_RANGE_DB

    even, more = np.full((64, 64), -20.0, np.float32), np.full((64, 64), 6.0, np.float32)
    dark = b_mode(even, np.zeros_like(even), np.random.default_rng(0)).astype(float)
    for echo, gain in ((even + more, more * 0), (even, more)):
        bright = b_mode(echo, gain, np.random.default_rng(0)).astype(float)
        assert abs((bright - dark).mean() * DYNAMIC_RANGE_DB / 255 - 6) < 0.1


def test_the_lesions_have_the_marks_of_their_subtypes() -> None:
    """Mean pictures: IDC shadows what lies behind it, mucinous carcinoma enhances it, papilloma is darkest."""
    mean = [np.mean([draw_phantom(0, c, i, 32) for i in range(60)], axis=0) for c in range(len(SUBTYPES))]
    behind = [image[24:27, 12:20].mean() for image in mean]
    centre = [image[15:18, 14:18].mean() for image in mean]
    assert behind[1] < behind[0] - 20 and behind[5] > behind[2] + 5
    assert centre[1] < centre[0] < centre[2]


def test_the_committed_run_says_that_phantoms_are_neither_trivial_nor_hopeless() -> None:
    run = json.loads((Path(__file__).parents[1] / "docs" / "phantom_difficulty.json").read_text())
    balanced = [figures for case, figures in run.items() if case.startswith("balanced")]
    long_tailed = [figures for case, figures in run.items() if case.startswith("long_tailed")]
    assert min(figures["macro_recall"] for figures in balanced) > 0.85
    assert min(figures["many"] for figures in long_tailed) > 0.7
    assert max(figures["few"] for figures in long_tailed) < 0.3
