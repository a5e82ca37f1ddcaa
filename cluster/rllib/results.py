"""An epoch's record as results of `RLCAS.train()`, from which Tune makes TensorBoard's points, under `rlcas/`."""

from __future__ import annotations

from typing import Any

from rlcas.tracking import charts
from rlcas.types import EpochRecord


def results_of(record: EpochRecord) -> dict[str, Any]:
    """Return the epoch's figures, nested by the parts of their tags; RLlib knows classes by their numbers alone.

    They bypass RLlib's MetricsLogger, which would take a millisecond an epoch and has nothing to reduce.
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
