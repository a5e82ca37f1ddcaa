import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from rlcas.metrics import (
    CLASS_SIGNALS,
    METRICS,
    absence_note,
    class_signals,
    confusion,
    per_class_average_precision,
    per_class_recall,
    report,
)
from rlcas.metrics.areas import weighted_areas
from rlcas.shots import ShotGroups


@st.composite
def predictions(draw):
    """Probabilities with many ties, and labels in which a class may be missing."""
    num_classes = draw(st.integers(2, 5))
    num_images = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = rng.integers(1, draw(st.sampled_from([3, 1000])), (num_images, num_classes)).astype(float)
    return weights / weights.sum(1, keepdims=True), rng.integers(0, num_classes, num_images)


@given(predictions())
def test_macro_figures_and_confusion_equal_scikit_learn(case):
    p, labels = case
    classes, predicted = range(p.shape[1]), p.argmax(1)
    matrix = confusion(labels, predicted, p.shape[1])
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(labels, predicted, labels=classes))
    # Over the classes with images or predictions, which is scikit-learn's own choice; recall needs images.
    common = {"average": "macro", "zero_division": 0}
    assert METRICS["f1"](p, labels) == pytest.approx(sk.f1_score(labels, predicted, **common))
    assert METRICS["precision"](p, labels) == pytest.approx(sk.precision_score(labels, predicted, **common))
    recall = sk.recall_score(labels, predicted, labels=np.unique(labels), **common)
    assert METRICS["recall"](p, labels) == pytest.approx(recall)
    assert METRICS["acc"](p, labels) == pytest.approx(sk.accuracy_score(labels, predicted))


@given(predictions())
def test_the_named_classes_are_those_of_the_averages(case):
    p, labels = case
    figures = report(p, labels, ShotGroups(many=(), medium=tuple(range(p.shape[1])), few=()))
    present, predicted = {str(c) for c in labels}, {str(c) for c in p.argmax(1)}
    names = [str(c) for c in range(p.shape[1])]
    assert figures["absent_classes"] == [name for name in names if name not in present]
    averaged = figures["averaged_classes"]
    assert set(averaged["recall"]) == present
    assert set(averaged["f1"]) == set(averaged["precision"]) == present | predicted
    assert len(averaged["auc"]) == (0 if len(present) == 1 else 1 if p.shape[1] == 2 else len(present))
    assert figures["medium"] == figures["recall"]
    # A mean says over what it is: the figures of these classes give it again.
    recall_C = np.array(figures["per_class_recall"])
    assert np.isnan(recall_C).tolist() == [name in figures["absent_classes"] for name in names]
    assert figures["recall"] == pytest.approx(recall_C[[int(name) for name in averaged["recall"]]].mean())


def test_a_class_without_images_and_predictions_leaves_no_trace_in_the_averages():
    p, labels = np.eye(3)[[0, 0, 1]], np.array([0, 0, 1])
    groups = ShotGroups(many=(0,), medium=(1,), few=(2,))
    figures = report(p, labels, groups, ["benign", "malignant", "rare"])
    without = report(p[:, :2], labels, ShotGroups(many=(0,), medium=(1,), few=()), ["benign", "malignant"])
    for name in ("f1", "recall", "precision", "acc", "many", "medium"):
        assert figures[name] == without[name] == 1.0
    assert np.isnan(figures["few"]) and np.isnan(figures["per_class_recall"][2])
    assert figures["absent_classes"] == ["rare"]
    assert figures["averaged_classes"]["f1"] == ["benign", "malignant"]
    note = absence_note("test image", figures["absent_classes"], figures["averaged_classes"])
    assert note == "no test image is of class 'rare': macro figures are over the other classes"
    assert absence_note("test image", without["absent_classes"], without["averaged_classes"]) is None


def test_a_class_that_is_predicted_without_images_costs_f1_and_precision_but_has_no_recall():
    figures = report(np.eye(3)[[0, 1, 2]], np.array([0, 1, 1]), ShotGroups(many=(), medium=(), few=()))
    # F1 of 1, 2 / 3 and 0; recall of 1 and 1 / 2.
    assert figures["f1"] == pytest.approx((1 + 2 / 3) / 3)
    assert figures["precision"] == pytest.approx(2 / 3)
    assert figures["recall"] == 0.75
    note = absence_note("test image", figures["absent_classes"], figures["averaged_classes"])
    assert note.endswith("the other classes; F1 and precision count '2' as 0, which was predicted")


def test_a_line_names_five_absent_classes_and_counts_the_others():
    note = absence_note("validation image", [str(c) for c in range(7)])
    assert note.startswith("no validation image is of class '0', '1', '2', '3', '4' and 2 more: macro")
    assert note.endswith("'4' and 2 more as 0, where it is predicted")


@given(predictions())
def test_auc_is_the_mean_of_scikit_learn_s_over_classes_with_both_kinds(case):
    p, labels = case
    classes = [1] if p.shape[1] == 2 else range(p.shape[1])
    areas = [sk.roc_auc_score(labels == c, p[:, c]) for c in classes if 0 < (labels == c).sum() < len(labels)]
    expected = np.mean(areas) if areas else np.nan
    assert METRICS["auc"](p, labels) == pytest.approx(expected, nan_ok=True)


@given(predictions())
def test_average_precision_is_the_mean_of_scikit_learn_s_over_classes_with_both_kinds_of_images(case):
    p, labels = case
    classes = np.unique(labels) if len(set(labels)) > 1 else []
    values = [sk.average_precision_score(labels == c, p[:, c]) for c in classes]
    assert METRICS["average_precision"](p, labels) == pytest.approx(
        np.mean(values) if values else np.nan, nan_ok=True
    )


@given(predictions())
def test_log_loss_is_scikit_learn_s(case):
    p, labels = case
    p = np.where(p > 0.6, 1.0, np.where(p.max(1, keepdims=True) > 0.6, 0.0, p))
    assert METRICS["log_loss"](p, labels) == pytest.approx(sk.log_loss(labels, p, labels=range(p.shape[1])))


@given(predictions(), st.integers(0, 99))
def test_areas_of_images_that_count_several_times_are_those_of_repeated_images(case, seed):
    p, labels = case
    weights_BN = np.random.default_rng(seed).integers(0, 3, (4, len(labels))).astype(np.float32)
    # Without weight, an image is not there; one at least is.
    weights_BN[:, 0] = 1
    areas = weighted_areas(p, labels, weights_BN)
    for b, weights_N in enumerate(weights_BN.astype(int)):
        drawn = np.repeat(np.arange(len(labels)), weights_N)
        known = areas.average_precision_BC[b]
        expected = per_class_average_precision(p[drawn], labels[drawn])
        assert known.tolist() == pytest.approx(expected.tolist(), nan_ok=True)
        auc = areas.auc_BC[b, 1:] if p.shape[1] == 2 else areas.auc_BC[b]
        assert np.nan_to_num(np.nanmean(auc) if not np.isnan(auc).all() else np.nan) == pytest.approx(
            np.nan_to_num(METRICS["auc"](p[drawn], labels[drawn]))
        )


@given(predictions())
def test_ece_equals_a_loop_over_bins(case):
    p, labels = case
    top, correct = p.max(1), p.argmax(1) == labels
    ece = 0.0
    for b in range(15):
        inside = (top > b / 15) & (top <= (b + 1) / 15)
        if inside.any():
            ece += inside.mean() * abs(correct[inside].mean() - top[inside].mean())
    # A confidence on an edge, such as 1/3, may fall on either side by its last bit.
    if not np.isclose(top * 15, np.round(top * 15)).any():
        assert METRICS["ece"](p, labels) == pytest.approx(ece)


def test_ece_of_a_hand_computed_case():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65]])
    assert METRICS["ece"](p, np.array([0, 1, 1])) == pytest.approx((2 * abs(0.5 - 0.9) + abs(1 - 0.65)) / 3)


def test_report_groups_are_means_of_per_class_recalls_and_nan_where_empty():
    p = np.eye(4)[[0, 0, 1, 2, 3, 3]]
    labels = np.array([0, 1, 1, 2, 3, 2])
    figures = report(p, labels, ShotGroups(many=(0, 1), medium=(), few=(2, 3)))
    assert figures["per_class_recall"] == [1.0, 0.5, 0.5, 1.0]
    assert (figures["many"], figures["few"]) == (0.75, 0.75)
    assert np.isnan(figures["medium"])
    assert figures["n"] == 6 and figures["confusion"][1] == [1, 1, 0, 0]
    assert set(METRICS) < set(figures)


def test_a_binary_decision_is_by_argmax_so_that_a_tie_goes_to_class_0():
    p = np.array([[0.5, 0.5], [0.49, 0.51]])
    np.testing.assert_array_equal(per_class_recall(p, np.array([0, 1])), [1.0, 1.0])
    np.testing.assert_array_equal(per_class_recall(p, np.array([1, 1])), [np.nan, 0.5])


def test_each_class_is_measured_on_its_own_images_by_hand():
    p_NC = np.array([[0.8, 0.2, 0.0], [0.6, 0.4, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    signals = class_signals(p_NC, np.array([0, 0, 1, 0]))
    nan = np.nan
    np.testing.assert_allclose(signals["recall"], [2 / 3, 0, nan])
    np.testing.assert_allclose(signals["f1"], [4 / 6, 0, nan])
    lost = (np.log(0.8) + np.log(0.6) + np.log(1e-4)) / 3
    np.testing.assert_allclose(signals["log_likelihood"], [lost, np.log(0.5), nan])


@given(predictions())
def test_signals_of_a_class_with_images_are_finite_and_map_to_shares(case):
    p, labels = case
    seen = np.bincount(labels, minlength=p.shape[1]) > 0
    for name, values in class_signals(p, labels).items():
        assert (np.isfinite(values) == seen).all()
        share = CLASS_SIGNALS[name].as_share(values[seen])
        assert ((share >= 0) & (share <= 1)).all()
    np.testing.assert_allclose(
        class_signals(p, labels)["f1"][seen],
        sk.f1_score(labels, p.argmax(1), labels=np.flatnonzero(seen), average=None, zero_division=0),
    )
