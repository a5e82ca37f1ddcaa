"""An epoch's record as results of `RLCAS.train()`, from which Tune makes TensorBoard's points, under `rlcas/`."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlcas.tracking import ACTION_NAMES, MOST_SCALAR_CLASSES
from rlcas.types import EpochRecord


def results_of(record: EpochRecord, metric: str) -> dict[str, Any]:
    """Return what the epoch gave, nested by the parts of its names.

    RLlib's MetricsLogger would take as long for these as the learner for its step, and has nothing to reduce.
    """
    nested: dict[str, Any] = {}
    for path, value in _values(record, metric).items():
        *groups, name = path.split("/")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    return nested


def _values(record: EpochRecord, metric: str) -> dict[str, Any]:
    winner = record.reports[record.winner]
    assert winner.result is not None
    valid = [report for report in record.reports if report.valid]
    values: dict[str, Any] = {
        "epoch": record.epoch,
        "winner": record.winner,
        "baseline": record.baseline,
        f"metric/{metric}": winner.result.metrics[metric],
        "metric/best": record.best_metric,
        "val_loss": winner.result.val_loss,
        "train_loss": winner.result.train_loss,
        "reward/mean": float(np.mean([report.reward for report in valid])),
        "entropy/mean": float(record.entropy_C.mean()),
        "failures": len(record.reports) - len(valid),
        "retries": record.retries,
        "slowest_episode_seconds": max(report.seconds for report in valid),
    }
    values |= {f"reward/episode_{report.child}": report.reward for report in valid}
    values |= _by_class("counts", winner.counts_C)
    for name, probabilities_C in zip(ACTION_NAMES, record.probabilities_C3.T, strict=True):
        values |= _by_class(f"probability_{name}", probabilities_C)
    return values


def _by_class(name: str, values_C: np.ndarray) -> dict[str, Any]:
    if len(values_C) > MOST_SCALAR_CLASSES:
        return {f"{name}/all": values_C}
    return {f"{name}/class_{i}": value for i, value in enumerate(values_C.tolist())}
