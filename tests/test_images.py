import numpy as np
import pytest
import torch
from tiny import CPU, tiny_set

from rlcas.batches.images import Normalisation, SyntheticImages, to_float
from rlcas.batches.sources import RealImages


@pytest.fixture
def source() -> RealImages:
    return RealImages(tiny_set(20, seed=0, channels=3))


def test_the_statistics_are_those_of_the_pixels():
    images = tiny_set(20, seed=0, channels=3).images_NCHW
    normalisation = Normalisation.of(images)
    np.testing.assert_allclose(normalisation.mean, (images / 255).mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(normalisation.std, (images / 255).std(axis=(0, 2, 3)))


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_constant_channel_is_centred_and_not_scaled(value):
    images = tiny_set(20, seed=0, channels=3).images_NCHW
    images[:, 1] = value
    normalisation = Normalisation.of(images)
    assert normalisation.std[1] == 1
    normalised = normalisation.apply(to_float(torch.from_numpy(images)))
    assert normalised[:, 1].abs().max() < 1e-6
    assert normalised[:, 0].std().item() == pytest.approx(1, rel=1e-3)


def test_images_become_floats_between_0_and_1():
    assert to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0.0, 0.2, 1.0])


def test_real_images_are_those_of_the_class_by_index(source):
    train = tiny_set(20, seed=0, channels=3)
    np.testing.assert_array_equal(source.class_sizes_C, train.class_counts(3))
    ones = train.images_NCHW[train.labels_N == 1]
    np.testing.assert_array_equal(source.images(1, np.array([3, 0])), ones[[3, 0]])


def test_a_resident_pool_returns_the_images_of_the_source(source):
    indices_by_class = [np.array([2, 0]), np.array([], np.int64), np.array([5])]
    from_source, resident = SyntheticImages(source, CPU), SyntheticImages(source, CPU)
    resident._stored = resident._load(source.class_sizes_C)  # as on a GPU
    expected = torch.cat(from_source.take(indices_by_class))
    assert expected.shape == (3, 3, 16, 16)
    assert torch.equal(torch.cat(resident.take(indices_by_class)), expected)


def test_no_indices_are_no_images(source):
    nothing = [np.array([], np.int64)] * 3
    resident = SyntheticImages(source, CPU)
    resident._stored = resident._load(source.class_sizes_C)
    assert SyntheticImages(source, CPU).take(nothing) == resident.take(nothing) == []
