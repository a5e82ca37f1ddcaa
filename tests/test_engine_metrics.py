import numpy as np
import pytest

from cluster.metrics import results_of
from rlcas.types import EpisodeReport, EpochRecord, EpochResult

pytestmark = pytest.mark.medium


def logged(num_classes):
    result = EpochResult(
        metrics={"f1": 0.5},
        val_loss=0.1,
        train_loss=0.2,
        per_class_recall_C=np.ones(num_classes),
        num_images=1,
        finite=True,
    )
    counts_C = np.arange(num_classes)
    shared = {"epoch": 4, "actions_C": np.ones(num_classes, np.int64), "counts_C": counts_C}
    reports = (
        EpisodeReport(child=0, status="exception", **shared),
        EpisodeReport(child=1, status="ok", reward=0.3, result=result, seconds=1.5, retries=2, **shared),
    )
    record = EpochRecord(
        epoch=4,
        reports=reports,
        winner=1,
        baseline=0.25,
        probabilities_C3=np.tile([0.2, 0.3, 0.5], (num_classes, 1)),
        best_metric=0.6,
        best_epoch=2,
        seconds=2.0,
    )
    return results_of(record, "f1")


def test_a_few_classes_are_scalars():
    told = logged(3)
    assert told["counts"] == {"class_0": 0, "class_1": 1, "class_2": 2}
    assert told["probability_more"]["class_2"] == 0.5
    assert told["reward"] == {"mean": 0.3, "episode_1": 0.3}
    assert told["metric"] == {"f1": 0.5, "best": 0.6}
    assert told["failures"] == 1
    assert told["retries"] == 2
    assert told["slowest_episode_seconds"] == 1.5
    assert told["entropy"]["mean"] == pytest.approx(1.0297, abs=1e-4)


def test_many_classes_are_histograms():
    told = logged(17)
    assert list(told["counts"]) == ["all"]
    np.testing.assert_array_equal(told["counts"]["all"], np.arange(17))
    assert told["probability_less"]["all"].shape == (17,)
