from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import CPU, tiny_config, tiny_data, tiny_set, tiny_trainer

from cluster.runs.results import show_test
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.config import ShotsConfig
from rlcas.errors import UserError
from rlcas.evaluation.bootstrap import bootstrap_area_intervals, bootstrap_interval
from rlcas.evaluation.evaluate import by_patient, evaluate
from rlcas.metrics import METRICS
from rlcas.training.fit import fit
from rlcas.training.saved_classifier import (
    MODEL_FILE,
    load_classifier,
    predict,
    save_classifier,
    save_incumbent,
)
from rlcas.types import ImageSet

META = ClassifierMeta.of(tiny_data(), tiny_config())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    trainer = tiny_trainer(tiny_config(classifier={"lr": 0.01}))
    best, _ = fit(trainer, np.zeros(3, np.int64), epochs=3)
    folder = tmp_path_factory.mktemp("run")
    save_incumbent(folder, best, tiny_data(), tiny_config())
    return folder


def test_a_saved_classifier_predicts_as_the_trained_one(folder):
    trainer = tiny_trainer(tiny_config(classifier={"lr": 0.01}))
    best, results = fit(trainer, np.zeros(3, np.int64), epochs=3)
    data = tiny_data()
    p_NC = predict(load_classifier(folder, CPU), data.val.images_NCHW)
    assert p_NC.shape == (24, 3) and np.allclose(p_NC.sum(axis=1), 1)
    figures = {name: metric(p_NC, data.val.labels_N) for name, metric in METRICS.items()}
    assert figures == {name: results[best.epoch - 1].metrics[name] for name in METRICS}


def test_evaluate_returns_every_metric_of_the_test_images(folder):
    figures = evaluate(folder, tiny_set(30, seed=5), ShotsConfig(many=(0,), few=(2,)), CPU)
    others = {"many", "medium", "few", "per_class_recall", "confusion", "n", "intervals"}
    others |= {"absent_classes", "averaged_classes"}
    assert set(METRICS) | others == set(figures)
    for name, (low, high) in figures["intervals"].items():
        assert low <= figures[name] <= high, name
    assert figures["n"] == 30 and np.sum(figures["confusion"]) == 30
    assert figures["few"] == figures["per_class_recall"][2]


def test_a_class_without_test_images_is_named_and_not_averaged(folder, capsys):
    images = tiny_set(30, seed=5)
    present = images.take(np.flatnonzero(images.labels_N != 1))
    patients = np.array([f"p{label}" for label in present.labels_N])
    figures = evaluate(folder, replace(present, patients_N=patients), ShotsConfig(many=(0,), few=(1,)), CPU)
    assert figures["absent_classes"] == figures["per_patient"]["absent_classes"] == ["b"]
    assert figures["averaged_classes"]["recall"] == ["a", "c"]
    recall_C = figures["per_class_recall"]
    assert np.isnan(recall_C).tolist() == [False, True, False] and np.isnan(figures["few"])
    assert figures["recall"] == np.mean([recall_C[0], recall_C[2]])
    low, high = figures["intervals"]["f1"]
    assert low <= figures["f1"] <= high
    show_test(figures)
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].startswith("note: no test image is of class 'b': macro figures are over the other classes")


def test_shots_by_test_counts_need_test_images_alone(folder):
    shots = ShotsConfig(source="test", many_above=9, few_below=10)
    assert evaluate(folder, tiny_set(30, seed=5), shots, CPU)["many"] >= 0


def test_metrics_per_patient_need_patient_ids(folder):
    images = tiny_set(30, seed=5)
    patients = np.array([f"p{i // 5}" for i in range(30)])
    with_ids = ImageSet(images_NCHW=images.images_NCHW, labels_N=images.labels_N, patients_N=patients)
    figures = evaluate(folder, with_ids, ShotsConfig(), CPU)
    assert figures["per_patient"]["n"] == 6 and figures["n"] == 30


def test_a_patient_has_the_mean_probability_and_the_most_frequent_label():
    images = ImageSet(
        images_NCHW=np.zeros((4, 1, 2, 2), np.uint8),
        labels_N=np.array([1, 0, 1, 0]),
        patients_N=np.array(["b", "a", "b", "b"]),
    )
    p_NC = np.array([[0.0, 1.0], [0.7, 0.3], [0.2, 0.8], [0.7, 0.3]])
    p_PC, labels_P = by_patient(p_NC, images)
    np.testing.assert_allclose(p_PC, [[0.7, 0.3], [0.3, 0.7]])
    np.testing.assert_array_equal(labels_P, [0, 1])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"{MODEL_FILE} is missing: give the folder of a finished run"):
        load_classifier(tmp_path, CPU)


def test_a_truncated_file_is_named(folder, tmp_path):
    (tmp_path / MODEL_FILE).write_bytes((folder / MODEL_FILE).read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"{MODEL_FILE} is damaged .*restore it or train again"):
        load_classifier(tmp_path, CPU)


def test_a_foreign_file_is_named(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / MODEL_FILE)
    with pytest.raises(UserError, match=rf"{MODEL_FILE} was not written by this version of rlcas"):
        load_classifier(tmp_path, CPU)


def test_weights_of_another_backbone_are_named(tmp_path):
    other = tiny_trainer(tiny_config(classifier={"width": 16}))
    save_classifier(tmp_path, other.model.state_dict(), META)
    with pytest.raises(UserError, match=rf"{MODEL_FILE} does not hold the weights of 'resnet18'"):
        load_classifier(tmp_path, CPU)


def test_images_of_another_shape_are_refused(folder):
    classifier = load_classifier(folder, CPU)
    with pytest.raises(
        UserError, match=r"the images are \(3, 16, 16\) .* trained on \(1, 16, 16\): make them alike"
    ):
        predict(classifier, tiny_set(3, 0, channels=3).images_NCHW)


def test_labels_beyond_the_classes_are_refused(folder):
    with pytest.raises(UserError, match=r"the test labels go up to 4, but .* knows 3 classes"):
        evaluate(folder, tiny_set(10, 0, num_classes=5), ShotsConfig(), CPU)


def test_an_incumbent_is_saved_with_its_trained_weights(folder):
    trainer = tiny_trainer(tiny_config(classifier={"lr": 0.01}))
    best, results = fit(trainer, np.zeros(3, np.int64), epochs=3)
    assert best.epoch == len(results)
    expected = trainer.model.state_dict()
    saved = load_classifier(folder, CPU).model.state_dict()
    assert saved.keys() == expected.keys()
    for name, tensor in saved.items():
        assert torch.equal(expected[name], tensor), name


def test_loading_does_not_change_the_global_random_state(folder):
    state = torch.random.get_rng_state()
    load_classifier(folder, CPU)
    assert torch.equal(state, torch.random.get_rng_state())


def test_metadata_holds_all_that_a_classifier_needs(folder):
    meta = load_classifier(folder, CPU).meta
    assert isinstance(meta, ClassifierMeta)
    assert meta.class_names == ("a", "b", "c") and meta.train_counts == (14, 14, 13)
    pixels = tiny_data().train.images_NCHW / 255
    assert meta.mean[0] == pytest.approx(pixels.mean()) and meta.std[0] == pytest.approx(pixels.std())


@pytest.mark.parametrize("num_classes", [2, 4])
def test_intervals_of_areas_are_those_of_the_metrics_one_by_one(num_classes):
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, num_classes, 60)
    # With ties.
    p_NC = rng.integers(1, 6, (60, num_classes)).astype(float)
    p_NC /= p_NC.sum(axis=1, keepdims=True)
    found = bootstrap_area_intervals(p_NC, labels_N)
    assert sorted(found) == ["auc", "average_precision"]
    for name, interval in found.items():
        assert interval == pytest.approx(bootstrap_interval(METRICS[name], p_NC, labels_N))
