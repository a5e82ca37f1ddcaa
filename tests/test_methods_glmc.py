"""GLMC against its definition."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import CPU, tiny_config, tiny_data, tiny_set

from rlcas.batches.batch_maker import BatchMaker, MiniBatch
from rlcas.batches.images import to_float
from rlcas.batches.sources import RealImages
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.methods import glmc
from rlcas.methods.glmc import MixtureConsistency, cutmix, label_weights, mixup
from rlcas.types import Incumbent, TrainingData

COUNTS = torch.tensor([20, 14, 7])


def objective(**glmc: object) -> MixtureConsistency:
    torch.manual_seed(0)
    config = tiny_config(method={"glmc": {"projection_dim": 16, **glmc}}, classifier={"method": "glmc"})
    return MixtureConsistency(ClassifierMeta.of(tiny_data(), config)).eval()


def batch() -> MiniBatch:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        {
            "views": tuple(torch.randn(10, 1, 16, 16, generator=generator) for _ in range(2)),
            "labels_N": torch.randint(3, (10,), generator=generator),
        }
        for _ in range(2)
    )
    return MiniBatch(**first, resampled=MiniBatch(**second))


def test_label_weights_by_hand() -> None:
    torch.testing.assert_close(label_weights(torch.tensor([1, 4]), 0.5), torch.tensor([4 / 3, 2 / 3]))
    torch.testing.assert_close(label_weights(COUNTS, 0.0), torch.ones(3))
    weights_C = label_weights(COUNTS, 1.2)
    assert weights_C.sum().item() == pytest.approx(3)
    assert (weights_C[2] / weights_C[0]).item() == pytest.approx((20 / 7) ** 1.2)


def test_mixup_is_the_weighted_mean() -> None:
    torch.testing.assert_close(mixup(torch.ones(2), torch.full((2,), 5.0), 0.75), torch.full((2,), 2.0))


def box(monkeypatch: pytest.MonkeyPatch, share: float, row: int, column: int) -> torch.Tensor:
    """Return [8, 16]: 1 where the other image is seen, with the box's centre at (row, column)."""
    centres = iter((torch.tensor(row), torch.tensor(column)))
    monkeypatch.setattr(glmc.torch, "randint", lambda *_: next(centres))
    images, others = torch.zeros(1, 1, 8, 16), torch.ones(1, 1, 8, 16)
    mixed = cutmix(images, others, share)
    assert images.sum() == 0 and others.sum() == 8 * 16
    return mixed[0, 0]


def test_cutmix_puts_a_box_of_the_images_aspect_around_the_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = box(monkeypatch, 0.75, row=4, column=9)
    assert seen.nonzero().amin(0).tolist() == [2, 5] and seen.nonzero().amax(0).tolist() == [5, 12]
    assert seen.sum() == 0.25 * 8 * 16


def test_cutmix_crops_the_box_at_the_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = box(monkeypatch, 0.75, row=0, column=15)
    assert seen.nonzero().amin(0).tolist() == [0, 11] and seen.nonzero().amax(0).tolist() == [1, 15]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_cutmix_of_one_image_alone(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    assert box(monkeypatch, share, row=4, column=8).sum() == (1 - share) * 8 * 16


def test_at_the_start_and_unmixed_it_is_plain_cross_entropy_of_both_views(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = objective(consistency=0.0)
    model.start_epoch(0, 10)
    monkeypatch.setattr(glmc.torch, "rand", lambda *_: torch.tensor(1.0))
    logits = [model.fc(model.backbone(view)) for view in batch().views]
    expected = sum(F.cross_entropy(logits_NC, batch().labels_N) for logits_NC in logits)
    torch.testing.assert_close(model.loss(batch(), COUNTS), expected)


@pytest.mark.parametrize(("epoch", "share"), [(0, 1.0), (5, 0.75), (9, 0.19)])
def test_the_plain_share_falls_with_the_square_of_the_epoch(epoch: int, share: float) -> None:
    model = objective()
    model.start_epoch(epoch, 10)
    assert model.plain_share == pytest.approx(share)


def reference_loss(model: MixtureConsistency) -> torch.Tensor:
    """Return the loss at t/T = 1/2 by the definition; the draws are those of seed 5."""
    (x1, x2), labels = batch().views, F.one_hot(batch().labels_N, 3)
    others = batch().resampled
    assert others is not None
    torch.manual_seed(5)
    lam = float(torch.rand(()))
    g = lam * x1 + (1 - lam) * others.views[0]
    l = x2.clone()  # noqa: E741 - the paper's name
    side = int(16 * (1 - lam) ** 0.5)
    row, column = int(torch.randint(16, ())), int(torch.randint(16, ()))
    for y in range(16):
        for x in range(16):
            if row - side // 2 <= y < row + side // 2 and column - side // 2 <= x < column + side // 2:
                l[:, :, y, x] = others.views[1][:, :, y, x]
    target = lam * labels + (1 - lam) * F.one_hot(others.labels_N, 3)
    inverse = torch.tensor([1 / 20, 1 / 14, 1 / 7])
    weighted = target * 3 * inverse / inverse.sum()
    loss = torch.zeros(())
    f_g, f_l = model.backbone(g), model.backbone(l)
    for features in (f_g, f_l):
        loss = loss - 0.75 * (target * model.fc(features).log_softmax(1)).sum(1).mean()
        loss = loss - 0.25 * (weighted * model.fc_cb(features).log_softmax(1)).sum(1).mean()
    z_g, z_l = model.projection(f_g), model.projection(f_l)
    for own, other in ((z_g, z_l), (z_l, z_g)):
        unit = F.normalize(model.predictor(own), dim=1)
        loss = loss - 6 * (unit * F.normalize(other.detach(), dim=1)).sum(1).mean()
    return loss


def test_loss_and_gradient_are_those_of_the_definition() -> None:
    model = objective(label_power=1.0, consistency=6.0)
    model.start_epoch(5, 10)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(reference_loss(model), parameters)
    torch.manual_seed(5)
    found = torch.autograd.grad(model.loss(batch(), COUNTS), parameters)
    for gradient, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-5)
    torch.manual_seed(5)
    torch.testing.assert_close(model.loss(batch(), COUNTS), reference_loss(model))


def test_the_head_of_the_weighted_labels_predicts() -> None:
    model, images = objective(), batch().views[0]
    torch.testing.assert_close(model(images), model.fc_cb(model.backbone(images)))


def test_the_second_batch_is_drawn_by_the_setting() -> None:
    assert objective().resampling_power == 0.0
    assert objective(resampling_power=0.2).resampling_power == 0.2


def second_batches(*, power: float, epoch: int = 3) -> list[np.ndarray]:
    """Return which training images come second, a batch each; image i has the value i alone."""
    images_NCHW = np.arange(41, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 8, 8), np.uint8)
    train = dataclasses.replace(tiny_set(41, 0), images_NCHW=images_NCHW)
    data = TrainingData(name="tiny", class_names=("a", "b", "c"), train=train, val=tiny_set(6, 1))
    config = tiny_config(classifier={"augment": "none", "batch_size": 8})
    maker = BatchMaker(data, RealImages(train), config, CPU, resampling_power=power)
    start = Incumbent(epoch=epoch - 1, arrays={}, counts_C=np.zeros(3, int), positions_C=np.zeros(3, int))
    plan = maker.plan(start, np.array([1, 0, 2]), 0)
    values = [batch.resampled.views[0][:, 0, 0, 0] for batch in maker.batches(plan, epoch, 0)]
    shown = maker.normalisation.apply(to_float(torch.from_numpy(images_NCHW)))[:, 0, 0, 0]
    return [(batch_B[:, None] - shown).abs().argmin(dim=1).numpy() for batch_B in values]


def test_without_resampling_the_second_batch_comes_from_permutations_of_the_training_images() -> None:
    batches = second_batches(power=0)
    order = np.concatenate(batches)
    assert [len(batch) for batch in batches] == [11, 11, 11, 11, 12], "as many as the first, with three added"
    assert sorted(order[:41]) == list(range(41)) and len(set(order[41:])) == 15
    np.testing.assert_array_equal(order, np.concatenate(second_batches(power=0)))
    assert (order[:41] != np.concatenate(second_batches(power=0, epoch=4))[:41]).any()
    assert (order[:41] != np.arange(41)).any()
    assert len(set(np.concatenate(second_batches(power=0.2))[:41])) < 35, "with replacement"
