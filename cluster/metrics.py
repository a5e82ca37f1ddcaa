"""An epoch's record as RLlib metrics, from which Tune makes TensorBoard's points, all under `rlcas/`."""

from __future__ import annotations

from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rlcas import charts
from rlcas.types import EpochRecord


def log_record(logger: MetricsLogger, record: EpochRecord) -> None:
    """Log what the epoch gave, as the values now; RLlib knows classes by their numbers alone."""
    class_tags = [f"class_{c}" for c in range(len(record.probabilities_C3))]
    values = {"epoch": record.epoch, **charts.scalars(record, class_tags), **charts.histograms(record)}
    for tag, value in values.items():
        logger.log_value(("rlcas", *tag.split("/")), value, reduce="item")
