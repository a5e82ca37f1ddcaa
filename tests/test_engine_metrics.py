import numpy as np
import pytest

from cluster.rllib.results import results_of
from rlcas.types import EpisodeReport, EpochRecord, EpochResult

pytestmark = pytest.mark.medium


def logged(num_classes):
    result = EpochResult(
        metrics={"f1": 0.5},
        val_loss=0.1,
        train_loss=0.2,
        per_class={"recall": np.ones(num_classes)},
        num_images=1,
        finite=True,
    )
    counts_C = np.arange(num_classes)
    shared = {"epoch": 4, "actions_C": np.ones(num_classes, np.int64), "counts_C": counts_C}
    taught = {"reward": 0.3, "advantage": 0.05}
    reports = (
        EpisodeReport(episode_index=0, status="exception", retries=2, num_clamped=2, **shared),
        EpisodeReport(
            episode_index=1, status="ok", num_synthetic=9, result=result, seconds=1.5, **taught, **shared
        ),
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
    return results_of(record)


def test_a_few_classes_are_scalars():
    values = logged(3)
    assert values["composition"] == {
        "class_0": 0,
        "class_1": 1,
        "class_2": 2,
        "sum": 3,
        "drawn": 9,
        "clamped": 2,
    }
    assert values["policy"]["class_2"] == {"less": 0.2, "same": 0.3, "more": 0.5}
    assert values["policy"]["distance_from_uniform"] == pytest.approx(1 / 6)
    assert values["policy"]["entropy"] == pytest.approx(1.0297, abs=1e-4)
    expected = {"mean": 0.3, "episode_1": 0.3, "advantage_1": 0.05, "baseline": 0.25, "winner": 1}
    assert values["reward"] == pytest.approx(expected)
    assert values["metrics"] == {"f1": 0.5, "best": 0.6, "val_loss": 0.1, "train_loss": 0.2}
    assert values["faults"] == {"failed": 1, "retries": 2}
    assert values["time"] == {"epoch_seconds": 2.0, "episode_1_seconds": 1.5}


def test_many_classes_are_histograms():
    values = logged(33)
    assert set(values["composition"]) == {"counts", "sum", "drawn", "clamped"}
    np.testing.assert_array_equal(values["composition"]["counts"], np.arange(33))
    assert values["policy"]["less"].shape == (33,)
