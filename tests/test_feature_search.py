"""Out-of-fold features, heads under a dose, and the search for doses."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import CPU, tiny_config, tiny_data
from torch import nn

from rlcas.batches.sources import RealImages
from rlcas.classifiers.inference import features_of
from rlcas.config import SamplerConfig
from rlcas.errors import UserError
from rlcas.jsonable import jsonable
from rlcas.training.feature_search import mean_class, search_doses
from rlcas.training.feature_space import FeatureSpace, fit_head, with_bias
from rlcas.training.out_of_fold import Fold, Labelled, fold_indices, out_of_fold, train_folds
from rlcas.types import ImageSet

NUM_CLASSES = 4
CENTRES_CD = 1.1 * np.random.default_rng(5).normal(size=(NUM_CLASSES, 12))


def drawn(counts_C, rng, centres_CD=CENTRES_CD, spread=1.0):
    labels_N = np.repeat(np.arange(len(counts_C)), counts_C)
    features_ND = centres_CD[labels_N] + spread * rng.normal(size=(len(labels_N), centres_CD.shape[1]))
    return Labelled(torch.from_numpy(features_ND), torch.from_numpy(labels_N))


def folds(seed, pool_of, train_C=(200, 80, 20, 6), held_C=(100, 40, 20, 12)):
    """Return three folds of Gaussian features with the pool that `pool_of(rng)` draws."""
    rng = np.random.default_rng(seed)
    return [
        Fold(
            train=drawn(train_C, rng),
            held_out=drawn(held_C, rng),
            held_out_groups_N=number * 1000 + np.arange(sum(held_C)),
            pool=pool_of(rng),
            others=drawn((100,) * NUM_CLASSES, rng),
        )
        for number in range(3)
    ]


def true_pool(rng):
    return drawn((30,) * NUM_CLASSES, rng)


def noise_pool(rng):
    return drawn((30,) * NUM_CLASSES, rng, np.zeros_like(CENTRES_CD), spread=2.0)


def search(space, seed=0, epochs=4, **sampler):
    settings = SamplerConfig.model_validate({"agents": "dose", **sampler})
    return search_doses(space, settings, np.array([300, 120, 30, 9]), seed=seed, epochs=epochs)


def test_folds_hold_every_image_out_once_and_keep_patients_together():
    labels_N = np.repeat([0, 1, 2], [60, 20, 10])
    patients_N = np.array([f"p{i // 2}" for i in range(90)])
    train = ImageSet(images_NCHW=np.zeros((90, 1, 2, 2), np.uint8), labels_N=labels_N, patients_N=patients_N)
    cut = fold_indices(train, 3, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in cut])), np.arange(90))
    for kept, held in cut:
        assert not set(patients_N[kept]) & set(patients_N[held])
        np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(90))
        assert (np.bincount(labels_N[held], minlength=3) >= [18, 6, 2]).all()


def test_a_class_of_one_image_is_always_trained_on():
    labels_N = np.repeat([0, 1], [20, 1])
    train = ImageSet(images_NCHW=np.zeros((21, 1, 2, 2), np.uint8), labels_N=labels_N)
    for kept, held in fold_indices(train, 3, seed=0):
        assert 20 in kept and 20 not in held


def test_features_are_of_networks_that_have_not_seen_the_images():
    data, config = tiny_data(60), tiny_config()
    asked = []

    def pool_of(kept_N):
        asked.append(kept_N)
        return RealImages(data.train.take(kept_N))

    def features():
        networks = train_folds(data, config, epochs=3, device=CPU)
        return out_of_fold(networks, data.train, pool_of, seed=0, images_a_class=5, others=data.val)

    before = torch.random.get_rng_state()
    cut, found = fold_indices(data.train, 3, config.seed), features()
    assert torch.equal(before, torch.random.get_rng_state())
    assert len(found) == 3
    for fold, (kept_N, held_N), asked_N in zip(found, cut, asked, strict=False):
        np.testing.assert_array_equal(asked_N, kept_N)
        assert fold.held_out.labels_N.tolist() == data.train.labels_N[held_N].tolist()
        np.testing.assert_array_equal(fold.held_out_groups_N, held_N)
        torch.testing.assert_close(
            fold.train.features_ND.mean(dim=0), torch.zeros(64).double(), atol=1e-9, rtol=0
        )
        assert torch.bincount(fold.pool.labels_N).tolist() == [5, 5, 5]
        assert fold.others is not None and len(fold.others.labels_N) == len(data.val)
        # Repeated real images are the fold's training images themselves.
        distances = torch.cdist(fold.pool.features_ND, fold.train.features_ND).min(dim=1).values
        assert (distances < 1e-4).all()
    space = FeatureSpace(found, 3, batch_size=16)
    zero_C = space.by_class(space.log_likelihoods(np.zeros(3, np.int64)))
    assert (zero_C > np.log(1 / 3)).all(), "the classes are distinguished on images that were held out"
    assert torch.equal(features()[2].held_out.features_ND, found[2].held_out.features_ND)


def test_a_network_without_a_linear_layer_has_no_features():
    with (
        pytest.raises(
            UserError, match=r"^classifier.backbone 'plain' has no linear layer to take features from"
        ),
        features_of(nn.Conv2d(1, 1, 1), "plain"),
    ):
        pass


def test_a_head_is_the_minimum_of_its_penalised_loss():
    rng = np.random.default_rng(0)
    images = drawn((50, 20, 10, 5), rng)
    inputs_NE, weights_N = with_bias(images.features_ND), torch.from_numpy(rng.uniform(0.1, 2, 85)) / 85
    prior_C = torch.tensor([50.0, 20.0, 10.0, 5.0]).double()
    head_EC = fit_head(inputs_NE, images.labels_N, weights_N, prior_C, 1e-2, None).requires_grad_()
    losses_N = F.cross_entropy(inputs_NE @ head_EC + prior_C.log(), images.labels_N, reduction="none")
    (weights_N @ losses_N + 0.005 * head_EC[:-1].square().sum()).backward()
    assert head_EC.grad.abs().max() < 1e-5
    warm_EC = fit_head(inputs_NE, images.labels_N, weights_N, prior_C, 1e-2, head_EC.detach())
    torch.testing.assert_close(warm_EC, head_EC.detach(), atol=1e-4, rtol=0)


def test_a_dose_of_repeated_images_is_their_weight():
    """Every real image of class 3 again, so often that it weighs as two more: as if these were in the training set."""
    (fold,) = folds(0, true_pool)[:1]
    rare = fold.train.labels_N == 3
    again = Labelled(fold.train.features_ND[rare], fold.train.labels_N[rare])
    # 306 images in batches of 102 make 3 steps: 4 images a batch are 12 an epoch, two of each of the 6.
    once = FeatureSpace([dataclasses.replace(fold, pool=again)], 4, batch_size=102)
    thrice = Labelled(
        torch.cat([fold.train.features_ND, again.features_ND, again.features_ND]),
        torch.cat([fold.train.labels_N, again.labels_N, again.labels_N]),
    )
    (dosed_EC,) = once.heads(np.array([0, 0, 0, 4]))
    expected_EC = fit_head(
        with_bias(thrice.features_ND),
        thrice.labels_N,
        torch.ones(318).double() / 306,
        torch.tensor([200.0, 80, 20, 18]).double(),
        once.ridge,
        None,
    )
    torch.testing.assert_close(dosed_EC, expected_EC, atol=5e-3, rtol=0)
    half = FeatureSpace([dataclasses.replace(fold, pool=again)], 4, batch_size=102, synthetic_weight=0.5)
    torch.testing.assert_close(half.heads(np.array([0, 0, 0, 8]))[0], dosed_EC, atol=5e-3, rtol=0)


def test_true_images_get_a_dose_where_they_help_and_it_helps_other_images_too():
    space = FeatureSpace(folds(0, true_pool), 4, batch_size=64)
    found = search(space)
    assert found.counts_C[3] > 0
    assert (found.benefit_probability_C[found.counts_C > 0] > 0.8).all()
    assert found.gain > found.gain_error > 0
    others = FeatureSpace(folds(0, true_pool), 4, batch_size=64, measured_by="others")
    gained_C = others.by_class(
        others.log_likelihoods(found.counts_C) - others.log_likelihoods(np.zeros(4, np.int64))
    )
    assert gained_C.mean() > 0
    first, second = (search(space, epochs=1).mean_C3.tobytes() for _ in range(2))
    assert first == second, "a function of its seed"
    read = json.loads(json.dumps(jsonable(dataclasses.asdict(found)), allow_nan=False))
    assert read["counts_C"] == found.counts_C.tolist()
    assert np.shape(read["covariance_C33"]) == (4, 3, 3)


@pytest.mark.parametrize("seed", range(2))
def test_features_that_say_nothing_of_their_class_get_no_dose(seed):
    found = search(FeatureSpace(folds(seed, noise_pool), 4, batch_size=64), seed)
    assert found.counts_C.tolist() == [0] * 4
    assert found.gain == found.gain_error == 0


def test_the_mean_class_and_its_error():
    values_N, labels_N = np.array([1.0, 3.0, 10.0, 14.0, 12.0]), np.array([0, 0, 2, 2, 2])
    mean, error = mean_class(values_N, labels_N, np.arange(5), 3)
    assert mean == 7
    assert error == pytest.approx(0.5 * np.sqrt(2 / 2 + 4 / 3))
    _, together = mean_class(values_N, labels_N, np.array([0, 1, 2, 2, 4]), 3)
    assert together < error, "deviations of one patient cancel"
