"""Logit adjustment against its definition, after training and in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_config, tiny_data, tiny_trainer

from rlcas.batches.batch_maker import MiniBatch
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.errors import UserError
from rlcas.losses import balanced_softmax
from rlcas.methods.logit_adjust import LogitAdjustment
from rlcas.metrics import macro_recall
from rlcas.settings import resolve
from rlcas.training.trainer import ClassifierTrainer

COUNTS = torch.tensor([90, 9, 1])
ZEROS = np.zeros(3, np.int64)


def config(**logit_adjust: object):
    return tiny_config(method={"logit_adjust": logit_adjust}, classifier={"method": "logit_adjust"})


def objective(**logit_adjust: object) -> LogitAdjustment:
    torch.manual_seed(0)
    return LogitAdjustment(ClassifierMeta.of(tiny_data(), config(**logit_adjust))).eval()


def batch() -> MiniBatch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(10, 1, 16, 16, generator=generator)
    return MiniBatch(views=(images,), labels_N=torch.randint(3, (10,), generator=generator))


def score(logits_NC: torch.Tensor, labels_N: torch.Tensor) -> float:
    return macro_recall(logits_NC.softmax(1).double().numpy(), labels_N.numpy())


def test_at_tau_1_the_loss_is_balanced_softmax() -> None:
    model = objective(mode="loss", tau=1.0)
    logits_NC = model.classifier(batch().images_NCHW)
    expected = balanced_softmax(logits_NC, batch().labels_N, COUNTS)
    torch.testing.assert_close(model.loss(batch(), COUNTS), expected)


def test_tau_weighs_the_prior_in_the_loss() -> None:
    model = objective(mode="loss", tau=2.0)
    logits_NC = model.classifier(batch().images_NCHW) + 2 * (COUNTS / 100).log()
    torch.testing.assert_close(model.loss(batch(), COUNTS), F.cross_entropy(logits_NC, batch().labels_N))


def test_posthoc_trains_plain_cross_entropy() -> None:
    model = objective()
    expected = F.cross_entropy(model.classifier(batch().images_NCHW), batch().labels_N)
    torch.testing.assert_close(model.loss(batch(), COUNTS), expected)


def test_posthoc_predicts_without_tau_log_pi() -> None:
    model, images = objective(), batch().images_NCHW
    model.loss(batch(), COUNTS)
    model.tau.fill_(1.5)
    expected = model.classifier(images) - 1.5 * (COUNTS / 100).log()
    torch.testing.assert_close(model(images), expected)


def test_the_loss_mode_predicts_the_logits_themselves() -> None:
    model, images = objective(mode="loss"), batch().images_NCHW
    logits_NC = model(images)
    assert torch.equal(logits_NC, model.classifier(images))
    assert model.calibrate(logits_NC, batch().labels_N, score) is logits_NC


def test_validation_chooses_the_tau_that_cancels_a_planted_prior() -> None:
    """Logits are those of even classes plus 1.5 log π: taking 1.5 log π off finds every label."""
    model = objective()
    model.loss(batch(), COUNTS)
    labels_N = torch.arange(3).repeat(4)
    even_NC = 2 * F.one_hot(labels_N, 3).float()
    adjusted_NC = model.calibrate(even_NC + 1.5 * model.log_prior_C, labels_N, score)
    assert model.tau.item() == 1.5
    torch.testing.assert_close(adjusted_NC, even_NC)


def test_of_equally_good_values_of_tau_the_first_is_chosen() -> None:
    model, labels_N = objective(taus=(2.0, 0.5, 1.0)), torch.arange(3)
    model.calibrate(100 * F.one_hot(labels_N, 3).float(), labels_N, score)
    assert model.tau.item() == 2.0


def test_a_second_calibration_starts_from_the_logits_themselves() -> None:
    model = objective()
    labels_N, plain_NC = batch().labels_N, torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    first_NC = model.calibrate(plain_NC, labels_N, score)
    tau = model.tau.item()
    torch.testing.assert_close(model.calibrate(first_NC, labels_N, score), first_NC)
    assert model.tau.item() == tau


def trained(trainer: ClassifierTrainer) -> LogitAdjustment:
    trainer.train_epoch(trainer.initial(ZEROS), np.array([0, 4, 2]), episode_index=0)
    assert isinstance(trainer.model, LogitAdjustment)
    return trainer.model


def test_the_prior_is_that_of_the_images_in_training() -> None:
    real_C, shown_C = torch.tensor([14.0, 14, 13]), torch.tensor([14.0, 26, 19])
    torch.testing.assert_close(trained(tiny_trainer(config())).log_prior_C, (real_C / 41).log())
    effective = config().model_copy(update={"sampler": tiny_config(sampler={"prior": "effective"}).sampler})
    torch.testing.assert_close(trained(tiny_trainer(effective)).log_prior_C, (shown_C / 59).log())


def test_the_metrics_of_an_epoch_are_those_of_the_chosen_tau(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    calibrate = LogitAdjustment.calibrate
    monkeypatch.setattr(LogitAdjustment, "calibrate", lambda *args: seen.append(calibrate(*args)) or seen[-1])
    trainer = tiny_trainer(config())
    result = trainer.train_epoch(trainer.initial(ZEROS), ZEROS, episode_index=0)
    labels_N = torch.from_numpy(tiny_data().val.labels_N)
    assert result.val_loss == pytest.approx(F.cross_entropy(seen[0], labels_N).item())
    assert trainer.model.tau.item() in (0.5, 1.0, 1.5, 2.0)


def test_an_epoch_that_is_not_finite_is_reported_and_not_calibrated() -> None:
    trainer = tiny_trainer(tiny_config(classifier={"method": "logit_adjust", "lr": 1e30}))
    assert not trainer.train_epoch(trainer.initial(ZEROS), ZEROS, episode_index=0).finite
    assert trainer.model.tau.item() == 0


def test_an_empty_choice_of_tau_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.logit_adjust\.taus"):
        resolve(given={"method.logit_adjust.taus": ""})
