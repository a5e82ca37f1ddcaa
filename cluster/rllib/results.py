"""An epoch's record as results of `RLCAS.train()`, from which Tune makes TensorBoard's points, under `rlcas/`."""

from __future__ import annotations

from typing import Any

from rlcas.tracking import charts
from rlcas.types import EpochRecord


def results_of(record: EpochRecord) -> dict[str, Any]:
    """Return what the epoch gave, nested by the parts of its tags; RLlib knows classes by their numbers alone.

    RLlib's MetricsLogger takes a millisecond an epoch for these, which it has nothing to reduce of.
    """
    class_tags = [f"class_{c}" for c in range(len(record.probabilities_C3))]
    values = {"epoch": record.epoch, **charts.scalars(record, class_tags), **charts.histograms(record)}
    results: dict[str, Any] = {}
    for tag, value in values.items():
        *groups, name = tag.split("/")
        place = results
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    return results
