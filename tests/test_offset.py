"""The decision offset δ: its fit against closed forms and search, and that all that predicts subtracts it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.special import log_softmax, softmax
from tiny import CPU, tiny_config, tiny_set, tiny_trainer

import rlcas
from rlcas import settings
from rlcas.classifiers.offset import FEWEST_IMAGES, FREE_SD, SCALE_SD, fit_offset
from rlcas.comparison.cell import read_cell, read_predictions, read_uncorrected, write_cell
from rlcas.comparison.intervals import drawn_figures, image_draws
from rlcas.deploy.export import FORMATS
from rlcas.errors import UserError
from rlcas.evaluation.evaluate import Examination, examine
from rlcas.metrics import BEFORE_OFFSET, METRICS, report
from rlcas.settings.presets import PRESETS
from rlcas.shots import ShotGroups
from rlcas.training.fit import fit
from rlcas.training.saved_classifier import (
    MODEL_FILE,
    Classifier,
    load_classifier,
    predict,
    predicted_logits,
    save_incumbent,
)
from rlcas.types import Float64, ImageSet, Int64, TrainingData

TRAIN_C = np.array([1000, 300, 90, 30, 10])
LOG_PI_C = np.log(TRAIN_C / TRAIN_C.sum())
DIRECTION_C = LOG_PI_C - LOG_PI_C.mean()


def drawn(counts_C: list[int], prior_C: Float64, seed: int = 0) -> tuple[Float64, Int64]:
    """Return logits log p(x | c) + prior of normal features x around c's own corner, and the labels."""
    rng = np.random.default_rng(seed)
    labels_N = np.repeat(np.arange(len(counts_C)), counts_C)
    x_NC = 1.5 * np.eye(len(counts_C))[labels_N] + rng.normal(size=(len(labels_N), len(counts_C)))
    return 1.5 * x_NC + prior_C, labels_N


def balanced(logits_NC: Float64, labels_N: Int64) -> float:
    """Return the class-balanced log-likelihood, class by class."""
    log_p_NC = log_softmax(logits_NC, axis=1)
    return float(np.mean([log_p_NC[labels_N == c, c].mean() for c in np.unique(labels_N)]))


def effective_images(labels_N: Int64) -> float:
    sizes = np.bincount(labels_N)[np.unique(labels_N)]
    return len(sizes) ** 2 / sum(1 / size for size in sizes)


def test_a_known_prior_is_found_and_taken_out() -> None:
    for counts_C in ([4000] * 5, [20000, 6000, 2000, 2000, 2000]):
        logits_NC, labels_N = drawn(counts_C, LOG_PI_C)
        np.testing.assert_allclose(fit_offset(logits_NC, labels_N, TRAIN_C), DIRECTION_C, atol=0.1)


def test_a_prior_that_is_not_the_trainings_is_found_class_by_class() -> None:
    prior_C = np.array([0.8, -1.0, 0.6, 0.2, -0.6])
    logits_NC, labels_N = drawn([4000] * 5, prior_C)
    found_C = fit_offset(logits_NC, labels_N, TRAIN_C)
    np.testing.assert_allclose(found_C - found_C.mean(), prior_C - prior_C.mean(), atol=0.1)


def test_logits_that_are_balanced_already_keep_their_operating_point() -> None:
    logits_NC, labels_N = drawn([4000] * 5, np.zeros(5))
    np.testing.assert_allclose(fit_offset(logits_NC, labels_N, TRAIN_C), 0, atol=0.06)


@pytest.mark.parametrize("counts_C", [[19, 12, 8, 5, 5], [3, 4], [19, 2, 2, 1]])
def test_with_few_images_one_scalar_is_the_best_of_a_grid(counts_C: list[int]) -> None:
    train_C = TRAIN_C[: len(counts_C)]
    logits_NC, labels_N = drawn(counts_C, np.log(train_C), seed=1)
    direction_C = np.log(train_C) - np.log(train_C).mean()
    grid = np.linspace(-4, 4, 16001)
    losses = [
        -effective_images(labels_N) * balanced(logits_NC - tau * direction_C, labels_N)
        + tau**2 / (2 * SCALE_SD**2)
        for tau in grid
    ]
    expected_C = grid[np.argmin(losses)] * direction_C
    np.testing.assert_allclose(fit_offset(logits_NC, labels_N, train_C), expected_C, atol=2e-3)


def test_only_classes_with_enough_images_leave_the_scalar_form() -> None:
    logits_NC, labels_N = drawn(
        [400, FEWEST_IMAGES, FEWEST_IMAGES - 1, 7, 5], LOG_PI_C + np.array([0, 1.5, 0, 0.7, -0.7])
    )
    found_C = fit_offset(logits_NC, labels_N, TRAIN_C)
    taus = np.diff(found_C[2:]) / np.diff(DIRECTION_C[2:])
    assert taus[0] == pytest.approx(taus[1], abs=1e-3), "the classes with few images are on the line"
    free_C = found_C - taus.mean() * DIRECTION_C
    assert free_C[1] > 0.1 and free_C[:2].sum() == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(free_C[2:], 0, atol=1e-3)


def test_no_other_offset_of_the_same_form_has_a_better_penalised_likelihood() -> None:
    counts_C = [60, 30, 25, 9, 6]
    logits_NC, labels_N = drawn(counts_C, 0.5 * LOG_PI_C + np.array([0.4, -0.8, 0.2, 0, 0]), seed=2)

    def loss(tau: float, free_3: Float64) -> float:
        offset_C = tau * DIRECTION_C + np.append(free_3, [0, 0])
        fit = -effective_images(labels_N) * balanced(logits_NC - offset_C, labels_N)
        return fit + tau**2 / (2 * SCALE_SD**2) + (free_3**2).sum() / (2 * FREE_SD**2)

    found_C = fit_offset(logits_NC, labels_N, TRAIN_C)
    tau = float(np.diff(found_C[3:])[0] / np.diff(DIRECTION_C[3:])[0])
    free_3 = (found_C - tau * DIRECTION_C)[:3]
    rng = np.random.default_rng(0)
    for size in (0.01, 0.1, 1.0):
        for step_4 in rng.normal(0, size, (50, 4)):
            moved_3 = free_3 + step_4[:3] - step_4[:3].mean()
            assert loss(tau, free_3) < loss(tau + step_4[3], moved_3)


@pytest.mark.parametrize("seed", range(5))
def test_the_balanced_likelihood_of_the_fitted_images_never_falls(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts_C = rng.integers(1, 50, 5).tolist()
    logits_NC, labels_N = drawn(counts_C, rng.normal(size=5), seed)
    found_C = fit_offset(logits_NC, labels_N, TRAIN_C)
    assert balanced(logits_NC - found_C, labels_N) > balanced(logits_NC, labels_N) - 1e-6


def test_a_constant_in_an_images_logits_changes_nothing() -> None:
    logits_NC, labels_N = drawn([40, 30, 9, 6, 5], LOG_PI_C)
    shifts_N1 = np.random.default_rng(0).normal(0, 50, (len(labels_N), 1))
    first_C, second_C = (
        fit_offset(given_NC, labels_N, TRAIN_C) for given_NC in (logits_NC, logits_NC + shifts_N1)
    )
    np.testing.assert_allclose(first_C, second_C, atol=1e-4)


def test_classes_without_images_do_not_move_the_fit_and_lie_on_its_line() -> None:
    logits_NC, labels_N = drawn([15, 9, 0, 6, 0], LOG_PI_C)
    found_C = fit_offset(logits_NC, labels_N, TRAIN_C)
    unlikely_NC = logits_NC + np.array([0, 0, 90, 0, -90])
    np.testing.assert_array_equal(fit_offset(unlikely_NC, labels_N, TRAIN_C), found_C)
    np.testing.assert_allclose(found_C / DIRECTION_C, found_C[0] / DIRECTION_C[0], atol=1e-3)


def test_images_of_one_class_or_none_give_no_offset() -> None:
    logits_NC, labels_N = drawn([30, 0, 0, 0, 0], LOG_PI_C)
    for kept in (slice(None), slice(0)):
        assert not fit_offset(logits_NC[kept], labels_N[kept], TRAIN_C).any()


def test_images_with_logits_that_are_no_numbers_do_not_count() -> None:
    logits_NC, labels_N = drawn([15, 9, 8, 6, 5], LOG_PI_C)
    broken_NC = np.concatenate([logits_NC, [[np.nan] * 5, [0, np.inf, 0, 0, 0]]])
    expected_C = fit_offset(logits_NC, labels_N, TRAIN_C)
    assert expected_C.any()
    np.testing.assert_array_equal(fit_offset(broken_NC, np.append(labels_N, [0, 1]), TRAIN_C), expected_C)
    assert not fit_offset(np.full((6, 2), np.nan), np.arange(6) % 2, np.array([5, 1])).any()


@pytest.mark.parametrize("num_images", [4, 400])
def test_separable_images_give_a_bounded_offset(num_images: int) -> None:
    labels_N = np.arange(num_images) % 2
    # Any δ between -5 and 5 finds all; so far from the data its likelihood alone would still push it.
    logits_NC = np.stack([np.full(num_images, 1000.0), 1000.0 + np.where(labels_N, 5.0, -5.0)], axis=1)
    for shift in (0.0, 4.9, 30.0):
        found_C = fit_offset(logits_NC + np.array([0, shift]), labels_N, np.array([99, 1]))
        assert np.isfinite(found_C).all() and np.abs(found_C).max() < 25


def test_classes_without_training_images_and_equal_classes_are_no_fault() -> None:
    logits_NC, labels_N = drawn([9, 9, 9, 9, 9], LOG_PI_C)
    assert np.isfinite(fit_offset(logits_NC, labels_N, np.array([1000, 300, 90, 30, 0]))).all()
    assert not fit_offset(logits_NC, labels_N, np.full(5, 7)).any(), "equal counts have no direction"


NAMES = ("a", "b", "c")


def tailed() -> TrainingData:
    """Return data with a long tail, on which plain cross-entropy forgets the last class."""
    train = tiny_set(150, 0)
    noise = np.random.default_rng(3).integers(0, 140, train.images_NCHW.shape)
    train = replace(train, images_NCHW=np.clip(train.images_NCHW // 3 + noise, 0, 255).astype(np.uint8))
    first = [np.flatnonzero(train.labels_N == c)[:size] for c, size in enumerate((50, 25, 6))]
    rest = [np.flatnonzero(train.labels_N == c)[-size:] for c, size in enumerate((24, 20, 10))]
    kept, val = np.concatenate(first), np.concatenate(rest)
    return TrainingData(name="tailed", class_names=NAMES, train=train.take(kept), val=train.take(val))


DATA = tailed()
CONFIG = tiny_config(classifier={"loss": "ce", "lr": 0.003}, sampler={"epochs": 3})
CALIBRATED = settings.override(CONFIG, {"classifier.offset": "calibrated"})
IMAGES = DATA.val.images_NCHW
TEST = ImageSet(
    images_NCHW=IMAGES, labels_N=DATA.val.labels_N, patients_N=np.array([f"p{i // 2}" for i in range(54)])
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same incumbent, saved under both settings."""
    trainer = tiny_trainer(CONFIG, DATA)
    best, _ = fit(trainer, np.zeros(3, np.int64), epochs=3)
    folders = {}
    for config in (CONFIG, CALIBRATED):
        folder = folders[config.classifier.offset] = tmp_path_factory.mktemp(config.classifier.offset)
        settings.save(config, folder)
        save_incumbent(folder, best, DATA, config)
    return folders


@pytest.fixture(scope="module")
def offset_C(runs: dict[str, Path]) -> Float64:
    offset = load_classifier(runs["calibrated"], CPU).meta.offset
    assert offset is not None and np.ptp(offset) > 0.2
    return np.array(offset)


def test_the_weights_are_the_same_bits_and_without_the_setting_nothing_is_subtracted(
    runs: dict[str, Path],
) -> None:
    plain, calibrated = (load_file(runs[name] / MODEL_FILE) for name in ("none", "calibrated"))
    assert plain.keys() == calibrated.keys()
    assert all(torch.equal(plain[name], calibrated[name]) for name in plain)
    classifier = load_classifier(runs["none"], CPU)
    assert classifier.meta.offset is None
    logits_NC = predicted_logits(classifier, IMAGES).double()
    np.testing.assert_array_equal(predict(classifier, IMAGES), logits_NC.softmax(dim=1).numpy())


def test_the_offset_is_that_of_the_validation_images_and_lifts_their_likelihood(
    runs: dict[str, Path], offset_C: Float64
) -> None:
    classifier = load_classifier(runs["calibrated"], CPU)
    logits_NC = predicted_logits(classifier, IMAGES).double().numpy()
    np.testing.assert_array_equal(
        fit_offset(logits_NC, DATA.val.labels_N, np.array(classifier.meta.train_counts)), offset_C
    )
    p_NC = predict(classifier, IMAGES)
    np.testing.assert_allclose(p_NC, softmax(logits_NC - offset_C, axis=1))
    before, after = (balanced(z_NC, DATA.val.labels_N) for z_NC in (logits_NC, np.log(p_NC)))
    assert after > before + 0.01


def test_saving_again_gives_the_same_file(runs: dict[str, Path], tmp_path: Path) -> None:
    best, _ = fit(tiny_trainer(CALIBRATED, DATA), np.zeros(3, np.int64), epochs=3)
    save_incumbent(tmp_path, best, DATA, CALIBRATED)
    assert (tmp_path / MODEL_FILE).read_bytes() == (runs["calibrated"] / MODEL_FILE).read_bytes()


@pytest.fixture(scope="module")
def examined(runs: dict[str, Path]) -> dict[str, Examination]:
    shots = CONFIG.shots
    return {name: examine(folder, TEST, shots, CPU) for name, folder in runs.items()}


def test_the_offset_moves_what_is_predicted_and_not_the_figures_before_it(
    examined: dict[str, Examination], offset_C: Float64
) -> None:
    plain, calibrated = examined["none"], examined["calibrated"]
    assert plain.uncorrected_NC is None and plain.offset is None
    assert calibrated.uncorrected_NC is not None and calibrated.offset == tuple(offset_C)
    np.testing.assert_array_equal(calibrated.uncorrected_NC, plain.p_NC)
    for of in (lambda found: found.figures, lambda found: found.figures["per_patient"]):
        for name in METRICS:
            assert (of(calibrated)[name] == of(plain)[name]) == (name in BEFORE_OFFSET), name
    for name in BEFORE_OFFSET:
        assert calibrated.figures["intervals"][name] == plain.figures["intervals"][name]
    assert calibrated.figures["intervals"]["recall"] != plain.figures["intervals"]["recall"]
    assert calibrated.figures["recall"] > plain.figures["recall"]
    assert calibrated.figures["acc"] == (calibrated.p_NC.argmax(axis=1) == TEST.labels_N).mean()


def test_new_images_are_predicted_with_the_offset(runs: dict[str, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "new.npz", images=IMAGES[:, 0])
    found = rlcas.predict(runs["calibrated"], tmp_path / "new.npz")
    p_NC = predict(load_classifier(runs["calibrated"], CPU), IMAGES)
    np.testing.assert_array_equal(found.p_NC, p_NC)
    assert found.labels == [NAMES[c] for c in p_NC.argmax(axis=1)]
    assert found.labels != rlcas.predict(runs["none"], tmp_path / "new.npz").labels


@pytest.mark.parametrize(
    "name",
    [name if name == "torchscript" else pytest.param(name, marks=pytest.mark.medium) for name in FORMATS],
)
def test_the_offset_is_inside_an_exported_file(runs: dict[str, Path], tmp_path: Path, name: str) -> None:
    form = FORMATS[name]
    predicted = {
        kind: form.open(rlcas.export(folder, tmp_path / f"{kind}{form.suffix}"))(IMAGES)
        for kind, folder in runs.items()
    }
    for kind, folder in runs.items():
        np.testing.assert_allclose(predicted[kind], predict(load_classifier(folder, CPU), IMAGES), atol=1e-5)
    assert np.abs(predicted["none"] - predicted["calibrated"]).max() > 0.01


def test_an_exported_file_names_its_offset(runs: dict[str, Path], tmp_path: Path, offset_C: Float64) -> None:
    for kind, folder in runs.items():
        facts = {"rlcas.json": ""}
        torch.jit.load(str(rlcas.export(folder, tmp_path / f"{kind}.pt")), _extra_files=facts)
        found = json.loads(facts["rlcas.json"])
        assert found.get("offset") == (offset_C.tolist() if kind == "calibrated" else None)
        assert ("offset" in found) == (kind == "calibrated")


def rewritten(run: Path, folder: Path, **changes: object) -> Classifier:
    """Load a copy of a run's classifier with other metadata; None takes a value away."""
    with safe_open(run / MODEL_FILE, framework="pt") as file:
        meta = {**json.loads(file.metadata()["rlcas"]), **changes}
    meta = {name: value for name, value in meta.items() if value is not None}
    save_file(load_file(run / MODEL_FILE), folder / MODEL_FILE, metadata={"rlcas": json.dumps(meta)})
    return load_classifier(folder, CPU)


def test_a_file_that_was_written_before_there_were_offsets_predicts_as_ever(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    classifier = dict(CONFIG.classifier)
    del classifier["offset"]
    old = rewritten(runs["none"], tmp_path, classifier=classifier, offset=None)
    np.testing.assert_array_equal(predict(old, IMAGES), predict(load_classifier(runs["none"], CPU), IMAGES))


@pytest.mark.parametrize("offset", [[0.5, -0.5], [0.5, -0.5, math.nan], ["x", 0, 0]])
def test_an_offset_that_does_not_fit_the_classes_is_refused(
    runs: dict[str, Path], tmp_path: Path, offset: list[object]
) -> None:
    with pytest.raises(UserError, match=r"was not written by this version of rlcas: train it again"):
        rewritten(runs["calibrated"], tmp_path, offset=offset)


def test_a_cell_keeps_both_probabilities_and_its_offset(
    examined: dict[str, Examination], tmp_path: Path, offset_C: Float64
) -> None:
    from rlcas.comparison.cell import Cell

    found = examined["calibrated"]
    cell = Cell(dataset="x", method="ce", seed=0, test={"f1": 0.5}, offset=tuple(offset_C))
    write_cell(tmp_path, cell, found.p_NC, TEST.labels_N, found.uncorrected_NC)
    assert read_cell(tmp_path) == cell
    np.testing.assert_array_equal(read_predictions(tmp_path)[0], found.p_NC)
    np.testing.assert_array_equal(read_uncorrected(tmp_path, 3), examined["none"].p_NC)
    with pytest.raises(UserError, match=r"test\.npz is damaged \(its arrays are of other classes\): delete .*"):
        read_uncorrected(tmp_path, 4)
    write_cell(tmp_path, replace(cell, offset=()), found.p_NC, TEST.labels_N)
    assert "offset" not in json.loads((tmp_path / "cell.json").read_text())
    with pytest.raises(UserError, match=r"does not hold a prediction of every image"):
        read_uncorrected(tmp_path, 3)


def test_a_comparison_draws_each_figure_from_the_probabilities_that_a_run_has_it_of(
    examined: dict[str, Examination],
) -> None:
    found, shots = examined["calibrated"], ShotGroups(many=(0,), medium=(1,), few=(2,))
    groups = {"many": (0,), "medium": (1,), "few": (2,)}
    weights_BN = image_draws(TEST.labels_N, draws=1)
    draws = drawn_figures(found.p_NC, TEST.labels_N, weights_BN, groups, found.uncorrected_NC)
    whole = report(found.p_NC, TEST.labels_N, shots, uncorrected_NC=found.uncorrected_NC)
    for name, values_B in draws.items():
        assert values_B[0] == pytest.approx(whole[name]), name
    for name in ("f1", *BEFORE_OFFSET):
        assert whole[name] == found.figures[name]


def test_preset_paper_states_that_it_has_no_offset() -> None:
    assert PRESETS["paper"]["classifier"]["offset"] == "none"
    assert settings.of({"preset": "paper"}).classifier.offset == "none"
