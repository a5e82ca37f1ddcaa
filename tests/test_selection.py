"""FreeMask's filter and re-sampling by hardness: by hand, by property, and on a real Baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import CPU, tiny_config, tiny_data, tiny_set, tiny_trainer
from torch import Tensor, nn

from rlcas import settings
from rlcas.batches.sources import RealImages, all_images
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.config import RunConfig
from rlcas.methods import METHODS
from rlcas.training.baseline import train_baseline
from rlcas.training.pool_selection import SELECTIONS, Selection, freemask, grants, keep, prediction_losses
from rlcas.training.saved_classifier import Classifier, load_classifier
from rlcas.types import ImageSet, TrainingData


class Brightness(nn.Module):
    """Predicts class 0 with the image's mean brightness as its probability."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        p_N = images_NCHW.mean(dim=(1, 2, 3))
        return torch.stack([p_N, 1 - p_N], dim=1).log()


def flat_images(brightness_by_class: list[list[int]]) -> ImageSet:
    """Return images of one brightness each, in percent of 255 (exact in multiples of 20)."""
    percent = np.concatenate(brightness_by_class)
    sizes = [len(values) for values in brightness_by_class]
    images = np.repeat(percent * 255 // 100, 64).reshape(-1, 1, 8, 8).astype(np.uint8)
    return ImageSet(images_NCHW=images, labels_N=np.repeat(np.arange(len(sizes)), sizes))


def by_brightness(
    real: list[list[int]], synthetic: list[list[int]], **own: float
) -> tuple[Selection, list[list[int]]]:
    """Select by `Brightness`; return also the brightness of all listed images, by class."""
    train = flat_images(real)
    data = TrainingData(name="flat", class_names=("bright", "dark"), train=train, val=train)
    config = RunConfig.model_validate({"method": {"freemask": own}, "classifier": {"precision": "fp32"}})
    meta = ClassifierMeta.of(data, config).model_copy(update={"mean": (0.0,), "std": (1.0,)})
    classifier = Classifier(Brightness(), meta, CPU)  # type: ignore[arg-type]
    selection = freemask(data, RealImages(flat_images(synthetic)), classifier, config)
    listed = all_images(selection.source)
    percent = listed.images_NCHW[:, 0, 0, 0].astype(int) * 100 // 255
    return selection, [sorted(percent[listed.labels_N == c].tolist()) for c in range(2)]


def test_a_loss_is_minus_the_log_of_the_labels_probability() -> None:
    images = flat_images([[20, 80], [40]])
    meta = ClassifierMeta.of(tiny_data(), RunConfig()).model_copy(update={"mean": (0.0,), "std": (1.0,)})
    classifier = Classifier(Brightness(), meta, CPU)  # type: ignore[arg-type]
    losses = prediction_losses(classifier, images.images_NCHW, images.labels_N)
    np.testing.assert_allclose(losses, -np.log([0.2, 0.8, 0.6]), rtol=1e-6)


@pytest.mark.parametrize(("nmax", "expected"), [(4, [9, 4]), (20, [33, 20]), (1, [3, 1])])
def test_hard_classes_and_hard_images_grant_more(nmax: int, expected: list[int]) -> None:
    losses, means = np.array([0.1, 0.3, 0.2, 0.6]), np.array([0.2, 0.6])
    np.testing.assert_array_equal(grants(losses, means, np.array([0, 0, 0, 1]), nmax), expected)


def test_the_rank_goes_by_the_class_before_the_image() -> None:
    losses, labels = np.array([0.0, 0.9, 0.4, 0.4]), np.array([0, 0, 1, 1])  # means 0.45 and 0.4
    np.testing.assert_array_equal(grants(losses, np.array([0.45, 0.4]), labels, 8), [15, 8])  # 7 + 8, 3 + 5


@given(
    losses=st.lists(st.floats(0, 9), min_size=1, max_size=50),
    nmax=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_every_image_grants_one_to_nmax_whatever_the_order(losses: list[float], nmax: int, seed: int) -> None:
    labels = np.arange(len(losses), dtype=np.int64) % 3
    means = np.array([0.3, 0.1, 0.2])
    granted = grants(np.array(losses), means, labels, nmax)
    sizes = np.bincount(labels, minlength=3)
    assert (sizes <= granted).all() and (granted <= nmax * sizes).all()
    order = np.random.default_rng(seed).permutation(len(losses))
    np.testing.assert_array_equal(grants(np.array(losses)[order], means, labels[order], nmax), granted)


def test_an_image_at_the_limit_passes() -> None:
    kept = keep([np.array([0.1, 0.5, 0.51]), np.array([2.0])], np.array([0.5, 1.0]))
    assert [indices.tolist() for indices in kept] == [[0, 1], []]


def test_images_that_are_too_hard_are_dropped_and_hard_classes_get_more() -> None:
    # Losses: bright 0.22 (3 images), dark 0.51: ranks 1 to 3 and 4, grants 6 + 11 + 16 and 20.
    selection, listed = by_brightness([[80, 80, 80], [40]], [[80] * 30 + [60], [0] * 10 + [20] * 10 + [60]])
    np.testing.assert_array_equal(selection.kept_C, [30, 20])  # 60 has losses 0.51 > 0.28, 0.92 > 0.64
    np.testing.assert_allclose(selection.mean_losses_C, -np.log([0.8, 0.6]), rtol=1e-6)
    np.testing.assert_array_equal(selection.source.class_sizes_C, [31, 19])  # 33 and 20, brought down to 50
    np.testing.assert_allclose(selection.shares_C, [0.62, 0.38])
    assert listed[0] == [80] * 31 and set(listed[1]) == {0, 20}


def test_a_list_repeats_the_remaining_images_of_a_class_equally_often() -> None:
    selection, listed = by_brightness([[80], [40] * 3], [[80] * 40, [0, 20, 40]])
    often = np.unique(listed[1], return_counts=True)[1]
    assert len(often) == 3 and np.ptp(often) <= 1 < often.min()
    assert selection.source.class_sizes_C.sum() == 43


def test_a_class_without_remaining_images_keeps_its_easiest_one_with_share_0() -> None:
    selection, listed = by_brightness([[80], [40]], [[80] * 5, [60, 80, 60]])
    np.testing.assert_array_equal(selection.kept_C, [5, 0])
    np.testing.assert_array_equal(selection.shares_C, [1, 0])
    assert listed[1] == [60]


def test_without_remaining_images_no_class_has_a_share() -> None:
    selection, listed = by_brightness([[80], [40]], [[80], [40]], tolerance=0.0)
    np.testing.assert_array_equal(selection.shares_C, [0, 0])
    assert listed == [[80], [40]]


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder: Path = tmp_path_factory.mktemp("baseline")
    data = tiny_data()
    train_baseline(folder, data.train, data, tiny_config(classifier={"lr": 0.01}), 12, CPU)
    return load_classifier(folder, CPU)


def test_a_real_baseline_drops_wrong_images_and_the_remaining_ones_can_be_trained_on(
    baseline: Classifier,
) -> None:
    data, right, wrong = tiny_data(), tiny_set(60, seed=7), tiny_set(60, seed=8)
    labels = np.concatenate([right.labels_N, (wrong.labels_N + 1) % 3])
    order = np.argsort(labels, kind="stable")
    images = np.concatenate([right.images_NCHW, wrong.images_NCHW])[order]
    pool = RealImages(ImageSet(images_NCHW=images, labels_N=labels[order]))
    config = settings.override(tiny_config(), METHODS["syn_class_resampling"].settings)
    selection = SELECTIONS["freemask"](data, pool, baseline, config)
    again = SELECTIONS["freemask"](data, pool, baseline, config)
    listed = all_images(selection.source)
    shown_N = np.rint(listed.images_NCHW.mean(axis=(1, 2, 3)) / 60 - 1)  # the class that an image was drawn for
    assert (shown_N == listed.labels_N).mean() > 0.9 and 30 < selection.kept_C.sum() <= 65
    np.testing.assert_array_equal(all_images(again.source).images_NCHW, listed.images_NCHW)
    trainer = tiny_trainer(tiny_config(), pool=selection.source)
    counts_C = np.array([1, 2, 3])
    assert trainer.train_epoch(trainer.initial(counts_C), counts_C, episode_index=0).finite
