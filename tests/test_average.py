"""`classifier.ema_decay`: the average of the weights is validated, selected and saved; training goes on with them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_trainer import assert_same_bits, assert_same_result, plain_baseline, run
from tiny import CPU, MIXED, ZEROS, tiny_config, tiny_data, tiny_trainer
from torch import Tensor, nn

from cluster.comparison.plan import row_of
from cluster.episodes.checkpoint import Snapshot, _read, write
from rlcas import settings
from rlcas.classifiers.average import WeightAverage
from rlcas.classifiers.snapshot import to_state_dict
from rlcas.config import CompareRunConfig, RunConfig
from rlcas.errors import UserError
from rlcas.metrics import METRICS
from rlcas.training.fit import fit
from rlcas.training.saved_classifier import load_classifier, predict, save_incumbent
from rlcas.types import Incumbent

DECAY = 0.9


def averaging(decay: float | None = DECAY, **classifier: Any) -> RunConfig:
    return tiny_config(classifier={"ema_decay": decay, **classifier})


def test_after_three_steps_the_average_is_that_of_the_definition() -> None:
    """With a decay that the warm-up has reached after one step of three."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].weight.data.fill_(1.0)
    average = WeightAverage(model, 0.15)
    for step, value in enumerate((2.0, 4.0, 8.0)):
        model[0].weight.data.fill_(value)
        model[1].running_mean.fill_(-value)
        model[1].num_batches_tracked.fill_(step + 1)
        average.update(step)
    expected = 0.1 * 1 + 0.9 * 2
    expected = 0.15 * expected + 0.85 * 4
    expected = 0.15 * expected + 0.85 * 8
    average.swap()
    assert model[0].weight.flatten().tolist() == pytest.approx([expected] * 4)
    mean = 0.15 * (0.15 * (0.1 * 0 - 0.9 * 2) - 0.85 * 4) - 0.85 * 8
    assert model[1].running_mean.tolist() == pytest.approx([mean] * 2)
    assert model[1].num_batches_tracked == 3
    average.swap()
    assert model[0].weight.flatten().tolist() == [8.0] * 4


@pytest.mark.parametrize("step", [0, 1, 7, 80, 81, 1000])
def test_the_decay_warms_up(step: int) -> None:
    model = nn.Linear(1, 1)
    model.weight.data.fill_(0.0)
    average = WeightAverage(model, DECAY)
    model.weight.data.fill_(1.0)
    average.update(step)
    kept = 1 - average.tensors[0].item()
    assert kept == pytest.approx(min(DECAY, (1 + step) / (10 + step)))


def test_weights_with_two_names_are_exchanged_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    model[0].weight.data.fill_(1.0)
    average = WeightAverage(model, DECAY)
    model[0].weight.data.fill_(2.0)
    average.swap()
    assert (model[0].weight == 1).all()
    average.swap()
    assert (model[1].weight == 2).all()


def by_hand(epochs: int, decay: float) -> dict[str, Tensor]:
    """Return the average over the plain textbook loop, which is trained anew for every number of steps."""
    config = tiny_config(classifier={"augment": "none", "width": 16})
    average = {name: value.double() for name, value in initial_weights(config).items()}
    for step in range(3 * epochs):
        state = plain_baseline(tiny_data(), config, epochs, num_steps=step + 1).state_dict(prefix="classifier.")
        kept = min(decay, (1 + step) / (10 + step))
        for name, value in state.items():
            moved = average[name] * kept + value.double() * (1 - kept)
            average[name] = moved if value.is_floating_point() else value.double()
    return average


def initial_weights(config: RunConfig) -> dict[str, Tensor]:
    trainer = tiny_trainer(config)
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_an_epoch_of_three_steps_validates_and_saves_the_average_of_the_baseline_s_weights() -> None:
    config = averaging(augment="none", width=16)
    trainer = tiny_trainer(config)
    saved = to_state_dict(run(trainer, ZEROS, 1).arrays, trainer.model)
    for name, value in by_hand(1, DECAY).items():
        torch.testing.assert_close(saved[name].double(), value, rtol=1e-4, atol=1e-5)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, saved[name]), "the model that was validated"


def test_training_goes_on_with_the_weights_themselves() -> None:
    averaged, plain = tiny_trainer(averaging()), tiny_trainer()
    raw = run(plain, MIXED, 2).arrays
    arrays = run(averaged, MIXED, 2).arrays
    for dtype, array in raw.items():
        model = sum(v.numel() for v in plain.model.state_dict().values() if str(v.dtype) == f"torch.{dtype}")
        assert arrays[dtype].size == array.size + model
        # Model, optimiser, and then the weights themselves.
        np.testing.assert_array_equal(arrays[dtype][-model:], array[:model])
        np.testing.assert_array_equal(arrays[dtype][model : len(array)], array[model:])
    assert not np.array_equal(arrays["float32"][:100], raw["float32"][:100])


def test_without_a_decay_the_bits_are_those_of_a_trainer_without_an_average() -> None:
    config = averaging(None, augment="none", width=16)
    trainer = tiny_trainer(config)
    state = to_state_dict(run(trainer, ZEROS, 2).arrays, trainer.model)
    for name, value in plain_baseline(tiny_data(), config, 2).state_dict(prefix="classifier.").items():
        assert torch.equal(state[name], value), name
    assert trainer._average.tensors == []


def stored(folder: Path, incumbent: Incumbent) -> Incumbent:
    """Write a checkpoint and read it."""
    return _read(write(Snapshot(incumbents={"best": incumbent}), folder)).incumbent("best")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_another_trainer_continues_from_a_checkpoint_with_the_same_bits(tmp_path: Path, optimizer: str) -> None:
    config = averaging(optimizer=optimizer)
    whole = run(tiny_trainer(config), MIXED, 2)
    half = run(tiny_trainer(config), MIXED, 1)
    other = tiny_trainer(config)
    run(other, ZEROS, 2)  # which leaves an average of its own
    result = other.train_epoch(stored(tmp_path, half), MIXED, episode_index=0)
    assert_same_bits(other.trained(), whole)
    assert_same_result(other.train_epoch(half, MIXED, episode_index=0), result)


def test_an_average_does_not_continue_a_run_without_one() -> None:
    with pytest.raises(UserError, match="continue with the classifier settings that it was saved with"):
        tiny_trainer(averaging()).train_epoch(run(tiny_trainer(), ZEROS, 1), ZEROS, episode_index=0)


@pytest.mark.parametrize("method", ["baseline", "logit_adjust", "proco", "ncl", "glmc"])
def test_a_saved_classifier_predicts_as_the_average_was_validated(method: str, tmp_path: Path) -> None:
    config, data = averaging(method=method, lr=0.01), tiny_data()
    best, results = fit(tiny_trainer(config), MIXED, epochs=3)
    save_incumbent(tmp_path, best, data, config)
    p_NC = predict(load_classifier(tmp_path, CPU), data.val.images_NCHW)
    result = results[best.epoch - 1]
    for name, metric in METRICS.items():
        assert metric(p_NC, data.val.labels_N) == pytest.approx(result.metrics[name], rel=1e-6), name


def test_a_loss_that_is_not_finite_is_seen_through_the_average() -> None:
    trainer = tiny_trainer(averaging(lr=1e30))
    assert not trainer.train_epoch(trainer.initial(ZEROS), ZEROS, episode_index=0).finite


def test_the_row_is_the_baseline_with_an_average_and_others_can_have_one() -> None:
    plain = CompareRunConfig()
    assert row_of(plain, "baseline").config.classifier.ema_decay is None
    classifier = row_of(plain, "baseline_ema").config.classifier
    assert classifier.ema_decay == 0.99 and classifier.loss == "balanced_softmax"
    given = CompareRunConfig.model_validate({"classifier": {"ema_decay": 0.5}})
    assert row_of(given, "ncl").config.classifier.ema_decay == 0.5


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.inf])
def test_a_decay_outside_of_0_to_1_is_refused(decay: float) -> None:
    with pytest.raises(UserError, match=r"classifier\.ema_decay"):
        settings.of({"classifier.ema_decay": decay})
