"""Invariants 1, 2, 2b and 6 of the epoch trainer, to the bit."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import CPU, FIXED, MIXED, ZEROS, tiny_config, tiny_data, tiny_set, tiny_trainer

from rlcas.batches.sources import RealImages
from rlcas.classifiers import build_classifier
from rlcas.classifiers.snapshot import to_state_dict
from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.losses import LOSSES
from rlcas.seeding import rng_for, seed_for
from rlcas.training.fit import fit, selection_key
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import EpochResult, ImageSet, Incumbent, TrainingData


def assert_same_bits(a: Incumbent, b: Incumbent) -> None:
    assert a.epoch == b.epoch and a.arrays.keys() == b.arrays.keys()
    np.testing.assert_array_equal(a.positions_C, b.positions_C)
    for name in a.arrays:
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name], strict=True)


def assert_same_result(a: EpochResult, b: EpochResult) -> None:
    np.testing.assert_equal(dataclasses.asdict(a), dataclasses.asdict(b))


def run(trainer: ClassifierTrainer, counts_C: np.ndarray, epochs: int) -> Incumbent:
    incumbent = trainer.initial(counts_C)
    for _ in range(epochs):
        trainer.train_epoch(incumbent, counts_C, episode_index=0)
        incumbent = trainer.trained()
    return incumbent


def plain_baseline(
    data: TrainingData, config: RunConfig, epochs: int, num_steps: int | None = None
) -> torch.nn.Module:
    """Train a classifier by the plain textbook loop: no composition, no pool, no snapshot."""
    settings, pixels = config.classifier, data.train.images_NCHW.astype(np.float64) / 255
    mean, scale = torch.tensor(pixels.mean()).float(), torch.tensor(1 / pixels.std()).float()
    images = ((torch.from_numpy(data.train.images_NCHW).float() / 255) - mean) * scale
    labels = torch.from_numpy(data.train.labels_N)
    prior = torch.bincount(labels).float().log()
    torch.manual_seed(seed_for(config.seed, "classifier"))
    model = build_classifier(settings, channels=1, num_classes=3, size_px=16)
    model = model.to(memory_format=torch.channels_last).train()
    adamw = torch.optim.AdamW(model.parameters(), weight_decay=settings.weight_decay, fused=True)
    batches = [
        batch
        for epoch in range(epochs)
        for batch in np.array_split(rng_for(config.seed, "order", epoch, 0).permutation(41), [16, 32])
    ]
    for step, batch in enumerate(batches[:num_steps]):
        adamw.param_groups[0]["lr"] = 0.5 * settings.lr * (1 + math.cos(math.pi * step / (3 * 3)))
        adamw.zero_grad()
        F.cross_entropy(model(images[batch]) + prior, labels[batch]).backward()
        adamw.step()
    return model


def test_a_composition_of_zeros_is_the_baseline_bit_for_bit():
    config = tiny_config(classifier={"augment": "none", "width": 16})
    trainer = tiny_trainer(config)
    state = to_state_dict(run(trainer, ZEROS, 3).arrays, trainer.model)
    expected = plain_baseline(tiny_data(), config, 3).state_dict(prefix="classifier.")
    assert state.keys() == expected.keys()
    for name in state:
        assert torch.equal(state[name], expected[name]), name


def test_a_composition_of_zeros_does_not_see_the_pool():
    other_pool = RealImages(tiny_set(30, seed=9))
    assert_same_bits(run(tiny_trainer(), ZEROS, 2), run(tiny_trainer(pool=other_pool), ZEROS, 2))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_another_trainer_continues_with_the_same_bits(optimizer):
    config = tiny_config(classifier={"optimizer": optimizer})
    whole = run(tiny_trainer(config), MIXED, 2)
    first, second = tiny_trainer(config), tiny_trainer(config)
    half = run(first, MIXED, 1)
    second.train_epoch(half, MIXED, episode_index=0)
    assert_same_bits(second.trained(), whole)


def test_an_epoch_depends_on_nothing_that_was_trained_before_it():
    trainer = tiny_trainer()
    incumbent = run(trainer, MIXED, 1)
    result = trainer.train_epoch(incumbent, MIXED, episode_index=1)
    trained = trainer.trained()
    trainer.train_epoch(trainer.initial(ZEROS), ZEROS, episode_index=2)
    torch.rand(3)
    np.random.rand(3)
    assert_same_result(trainer.train_epoch(incumbent, MIXED, episode_index=1), result)
    assert_same_bits(trainer.trained(), trained)


def test_an_epoch_does_not_depend_on_one_that_failed_between_backward_and_step(monkeypatch):
    trainer = tiny_trainer()
    incumbent = trainer.initial(MIXED)
    result = trainer.train_epoch(incumbent, MIXED, episode_index=0)

    def without_memory():
        raise torch.OutOfMemoryError("no memory left")

    with monkeypatch.context() as patch:
        patch.setattr(trainer._optimizer, "step", without_memory)
        with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
            trainer.train_epoch(incumbent, MIXED, episode_index=1)
    assert_same_result(trainer.train_epoch(incumbent, MIXED, episode_index=0), result)


def test_an_epoch_does_not_change_its_incumbent_or_the_global_random_state():
    trainer = tiny_trainer()
    incumbent = trainer.initial(MIXED)
    copies = {name: array.copy() for name, array in incumbent.arrays.items()}
    for array in incumbent.arrays.values():
        array.flags.writeable = False  # as arrays from Ray's object store are
    state = torch.random.get_rng_state()
    trainer.train_epoch(incumbent, MIXED, episode_index=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, array in incumbent.arrays.items():
        np.testing.assert_array_equal(array, copies[name])


@pytest.mark.parametrize(
    "sampler",
    [FIXED, {"prior": "effective"}, {"draw_mode": "with_replacement"}, {**FIXED, "prior": "effective"}],
)
def test_a_composition_of_zeros_has_the_same_bits_in_every_mode(sampler):
    assert_same_bits(run(tiny_trainer(tiny_config(sampler=sampler)), ZEROS, 2), run(tiny_trainer(), ZEROS, 2))


@pytest.mark.parametrize("sampler", [FIXED, {"prior": "effective"}, {"draw_mode": "with_replacement"}])
def test_every_mode_changes_an_epoch_with_synthetic_images(sampler):
    trained = [run(tiny_trainer(tiny_config(sampler=s)), MIXED, 1).arrays["float32"] for s in (sampler, {})]
    assert not np.array_equal(*trained)


def seen_priors(trainer: ClassifierTrainer, counts_C: np.ndarray) -> list[list[int]]:
    """Return the class counts that the loss receives in one epoch, call by call: the steps, then validation."""
    seen, loss = [], trainer.model._loss
    trainer.model._loss = lambda logits, labels, counts: (
        seen.append(counts.tolist()) or loss(logits, labels, counts)
    )
    assert trainer.train_epoch(trainer.initial(counts_C), counts_C, episode_index=0).finite
    return seen


def test_the_effective_prior_counts_the_images_of_the_epoch_and_validation_has_the_real_prior():
    real = [14, 14, 13]
    assert seen_priors(tiny_trainer(), MIXED) == [real] * 4
    effective = tiny_trainer(tiny_config(sampler={"prior": "effective"}))
    assert seen_priors(effective, MIXED) == [[14, 14 + 3 * 4, 13 + 3 * 2]] * 3 + [real]


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_class_without_images_in_the_epoch_keeps_the_loss_under_the_effective_prior_finite(loss):
    few = tiny_data(num_train=33)
    few = dataclasses.replace(few, train=few.train.take(np.flatnonzero(few.train.labels_N < 2)))
    pool = RealImages(tiny_set(30, seed=9))
    config = tiny_config(sampler={"prior": "effective"}, classifier={"loss": loss})
    counts_C = np.array([1, 0, 0])
    trainer = tiny_trainer(config, data=few, pool=pool)
    assert math.isfinite(trainer.train_epoch(trainer.initial(counts_C), counts_C, episode_index=0).train_loss)


def test_positions_advance_by_the_images_drawn():
    incumbent = run(tiny_trainer(), MIXED, 2)
    np.testing.assert_array_equal(incumbent.positions_C, 2 * 3 * MIXED)


def test_it_learns_separable_classes():
    config = tiny_config(classifier={"lr": 0.01}, sampler={"epochs": 8})
    _, results = fit(tiny_trainer(config), np.array([2, 2, 2]), epochs=8)
    assert results[-1].metrics["recall"] > 0.9 > results[-1].train_loss
    assert results[0].num_images == 41 + 3 * 6
    assert results[-1].train_loss < results[0].train_loss


def test_fit_returns_the_best_epoch_by_the_reward_metric_and_reports_every_epoch():
    trainer = tiny_trainer(tiny_config(classifier={"lr": 0.01}, sampler={"epochs": 4, "metric": "acc"}))
    seen: list[EpochResult] = []
    best, results = fit(trainer, ZEROS, epochs=4, on_epoch_end=seen.append)
    assert seen == results
    keys = [(result.metrics["acc"], -result.val_loss) for result in results]
    assert best.epoch == 1 + keys.index(max(keys))
    assert_same_bits(best, run(trainer, ZEROS, best.epoch))


def test_a_class_without_validation_images_lowers_no_figure_that_agents_are_rewarded_by():
    data = tiny_data()
    kept = np.flatnonzero(data.val.labels_N != 2)
    without = dataclasses.replace(data, val=data.val.take(kept))
    config = tiny_config(classifier={"lr": 0.01}, sampler={"epochs": 8})
    best, results = fit(tiny_trainer(config, without), ZEROS, epochs=8)
    result = results[best.epoch - 1]
    assert result.metrics["acc"] == result.metrics["f1"] == result.metrics["recall"] == 1.0
    assert np.isnan(result.per_class_recall_C).tolist() == [False, False, True]


def test_ties_in_the_metric_go_to_the_lower_loss_and_nan_loses():
    base = {"train_loss": 1.0, "per_class": {"recall": ZEROS}, "num_images": 1, "finite": True}
    low, high, nan = (
        selection_key(EpochResult(metrics={"f1": f1}, val_loss=loss, **base), "f1")
        for f1, loss in [(0.5, 0.3), (0.5, 0.4), (math.nan, 0.1)]
    )
    assert low > high > nan


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_fit_stops_at_a_loss_that_is_not_finite(optimizer):
    trainer = tiny_trainer(tiny_config(classifier={"lr": 1e30, "optimizer": optimizer}))
    assert not trainer.train_epoch(trainer.initial(ZEROS), ZEROS, episode_index=0).finite
    with pytest.raises(UserError, match=r"the loss is not finite in epoch 1: lower classifier\.lr, .* 1e\+30"):
        fit(trainer, ZEROS, epochs=1)


def test_the_learning_rate_is_a_half_cosine_over_the_run():
    trainer = tiny_trainer(tiny_config(classifier={"lr": 2.0}, sampler={"epochs": 4}))
    assert [trainer._lr(step) for step in (0, 6, 12)] == pytest.approx([2.0, 1.0, 0.0])
    assert tiny_trainer(tiny_config(classifier={"lr": 2.0, "lr_schedule": "constant"}))._lr(6) == 2.0


def test_an_unknown_loss_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"classifier\.loss 'mse' is unknown: use one of balanced_softmax, "):
        tiny_trainer(tiny_config(classifier={"loss": "mse"}))


def test_images_mapped_from_disk_train_to_the_same_bits(tmp_path: Path):
    data = tiny_data()
    np.save(tmp_path / "images.npy", data.train.images_NCHW)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    on_disk = dataclasses.replace(data, train=ImageSet(images_NCHW=mapped, labels_N=data.train.labels_N))
    assert_same_bits(run(tiny_trainer(data=on_disk), MIXED, 1), run(tiny_trainer(data=data), MIXED, 1))


def test_training_data_has_no_field_for_test_images():
    assert {field.name for field in dataclasses.fields(TrainingData)} == {
        "name",
        "class_names",
        "train",
        "val",
        "notes",
        "window",
        # Names and hashes alone.
        "record",
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_same_inputs_give_the_same_bits():
    device = torch.device("cuda")
    runs = [run(tiny_trainer(device=device), MIXED, 2) for _ in range(2)]
    assert_same_bits(*runs)
    assert device != CPU
