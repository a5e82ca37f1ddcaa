"""`sampler.synthetic_weight`: synthetic images weigh less in the training loss than real ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from tiny import FIXED, MIXED, ZEROS, tiny_config, tiny_data, tiny_trainer

from cluster.comparison.plan import row_of
from cluster.runs.checks import check_training
from rlcas import settings
from rlcas.batches.batch_maker import MiniBatch
from rlcas.batches.sources import RealImages
from rlcas.config import CompareRunConfig
from rlcas.errors import UserError
from rlcas.losses import LOSSES
from rlcas.methods import METHODS
from rlcas.training.trainer import ClassifierTrainer

WEIGHING: dict[str, dict[str, Any]] = {
    **{loss: {"classifier": {"loss": loss}} for loss in LOSSES},
    "logit_adjust": {"classifier": {"method": "logit_adjust"}},
    "logit_adjust, loss": {
        "classifier": {"method": "logit_adjust"},
        "method": {"logit_adjust": {"mode": "loss"}},
    },
    "cbfocal": {"classifier": {"method": "cbfocal"}},
    "ncl": {"classifier": {"method": "ncl"}},
}
"""Settings of every training step that weighs images, apart from LIFT's."""
OTHERS = ("proco", "glmc")
COUNTS_C = torch.tensor([14.0, 9.0, 3.0])


def batch_of(num_real: int = 5, num_synthetic: int = 3, weight: float = 1.0) -> MiniBatch:
    generator = torch.Generator().manual_seed(3)
    num_images = num_real + num_synthetic
    return MiniBatch(
        views=(torch.randn(num_images, 1, 16, 16, generator=generator),),
        labels_N=torch.randint(3, (num_images,), generator=generator),
        num_synthetic=num_synthetic,
        synthetic_weight=weight,
    )


def images_of(batch: MiniBatch, rows: slice) -> MiniBatch:
    """Return some of the batch's images as a batch of real ones."""
    return MiniBatch(views=(batch.images_NCHW[rows],), labels_N=batch.labels_N[rows])


def trained(trainer: ClassifierTrainer, counts_C: np.ndarray) -> np.ndarray:
    trainer.train_epoch(trainer.initial(counts_C), counts_C, episode_index=0)
    return trainer.trained().arrays["float32"]


@pytest.mark.parametrize("weight", [0.3, 0.999])
@pytest.mark.parametrize("step", WEIGHING)
def test_the_loss_is_the_weighted_mean_of_the_images_own_losses(step: str, weight: float) -> None:
    model = tiny_trainer(tiny_config(**WEIGHING[step])).model.double().eval()
    batch = batch_of(weight=weight)
    batch = dataclasses.replace(batch, views=(batch.images_NCHW.double(),))
    losses_N = torch.stack([model.loss(images_of(batch, slice(i, i + 1)), COUNTS_C) for i in range(8)])
    expected = (losses_N[:5].sum() + weight * losses_N[5:].sum()) / (5 + weight * 3)
    torch.testing.assert_close(model.loss(batch, COUNTS_C), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("step", WEIGHING)
def test_a_tiny_weight_leaves_the_loss_and_the_gradient_of_the_real_images(step: str) -> None:
    model = tiny_trainer(tiny_config(**WEIGHING[step])).model.eval()
    batch, gradients = batch_of(weight=1e-9), []
    for seen in (batch, images_of(batch, slice(5))):
        model.zero_grad()
        model.loss(seen, COUNTS_C).backward()
        found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("step", WEIGHING)
def test_at_a_weight_of_1_the_loss_has_the_bits_of_a_batch_that_knows_no_synthetic_images(step: str) -> None:
    model = tiny_trainer(tiny_config(**WEIGHING[step])).model.eval()
    losses = [model.loss(batch, COUNTS_C) for batch in (batch_of(), images_of(batch_of(), slice(None)))]
    assert torch.equal(*losses)


@pytest.mark.parametrize("weight", [0.2, 1.0])
@pytest.mark.parametrize(("num_real", "num_synthetic"), [(8, 0), (0, 8)])
def test_images_of_one_kind_weigh_alike(num_real: int, num_synthetic: int, weight: float) -> None:
    model = tiny_trainer().model.eval()
    batch = batch_of(num_real, num_synthetic, weight)
    assert torch.equal(model.loss(batch, COUNTS_C), model.loss(images_of(batch, slice(None)), COUNTS_C))


@pytest.mark.parametrize("sampler", [{}, FIXED])
def test_an_epoch_weighs_the_images_that_come_from_the_pool(sampler: dict[str, Any]) -> None:
    trainer = tiny_trainer(tiny_config(sampler={"synthetic_weight": 0.25, **sampler}))
    plan = trainer.batch_maker.plan(trainer.initial(MIXED), MIXED, 0)
    for real, batch in zip(plan.real_batches, trainer.batch_maker.batches(plan, 0, 0), strict=True):
        assert (batch.num_real, batch.num_synthetic, batch.synthetic_weight) == (len(real), 6, 0.25)


def test_the_weight_changes_an_epoch_with_synthetic_images_alone() -> None:
    light, plain = tiny_trainer(tiny_config(sampler={"synthetic_weight": 0.3})), tiny_trainer()
    assert np.array_equal(trained(light, ZEROS), trained(plain, ZEROS))
    assert not np.array_equal(trained(light, MIXED), trained(plain, MIXED))


def test_the_effective_prior_counts_a_synthetic_image_by_its_weight() -> None:
    config = tiny_config(sampler={"prior": "effective", "synthetic_weight": 0.25})
    trainer = tiny_trainer(config)
    plan = trainer.batch_maker.plan(trainer.initial(MIXED), MIXED, 0)
    assert trainer._prior(plan).tolist() == [14, 14 + 0.25 * 3 * 4, 13 + 0.25 * 3 * 2]


def test_a_class_of_few_light_images_counts_them_and_one_without_images_counts_one() -> None:
    data = tiny_data()
    kept = data.train.take(np.flatnonzero(data.train.labels_N == 0))
    config = tiny_config(sampler={"prior": "effective", "synthetic_weight": 0.25})
    trainer = tiny_trainer(config, dataclasses.replace(data, train=kept), pool=RealImages(data.train))
    plan = trainer.batch_maker.plan(trainer.initial(ZEROS), np.array([0, 1, 0]), 0)
    assert trainer._prior(plan).tolist() == [14, 0.25, 1]


@pytest.mark.parametrize("method", OTHERS)
def test_a_training_step_that_cannot_weigh_images_is_refused_before_anything_starts(method: str) -> None:
    stated = {"classifier.method": method, "sampler.synthetic_weight": 0.3}
    message = rf"^sampler\.synthetic_weight 0\.3 is not possible with classifier\.method '{method}', whose loss"
    with pytest.raises(UserError, match=message):
        check_training(settings.of(stated))
    with pytest.raises(UserError, match=message):
        tiny_trainer(settings.of(stated))
    check_training(settings.of({"classifier.method": method}))


def test_every_training_step_weighs_images_or_is_refused() -> None:
    weighing = {name for name, method in METHODS.items() if getattr(method.objective, "weighs_images", False)}
    assert METHODS.keys() - weighing == {*OTHERS}


@pytest.mark.parametrize("method", OTHERS)
def test_rows_without_synthetic_images_stay_in_a_comparison_of_light_ones(method: str) -> None:
    config = CompareRunConfig.model_validate({"sampler": {"synthetic_weight": 0.3}})
    assert row_of(config, method).config.sampler.synthetic_weight == 1
    assert row_of(config, "syn_sketch").config.sampler.synthetic_weight == 0.3


@pytest.mark.parametrize("weight", [0, -0.5, 1.5])
def test_a_weight_outside_of_0_to_1_is_refused(weight: float) -> None:
    with pytest.raises(UserError, match=r"sampler\.synthetic_weight"):
        settings.of({"sampler.synthetic_weight": weight})
