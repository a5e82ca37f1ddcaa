"""The plain training loop: no agents, no Ray."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from rlcas.batches.composition import shows_synthetic
from rlcas.errors import UserError
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import EpochResult, Incumbent, Int64


def fit(
    trainer: ClassifierTrainer,
    counts_C: Int64,
    epochs: int,
    on_epoch_end: Callable[[EpochResult], None] | None = None,
) -> tuple[Incumbent, list[EpochResult]]:
    """Train a classifier under one composition and return the best incumbent with the results of all epochs.

    The best is by `sampler.metric` on the validation images; ties go to the lower validation loss, then to the
    earlier epoch.

    Args:
        trainer: what trains an epoch.
        counts_C: [C] synthetic images of each class in every mini-batch, but for epochs of real images alone; zeros are
            the plain Baseline.
        epochs: how many to train.
        on_epoch_end: called with the result of each epoch.

    Raises:
        UserError: a loss is not finite.
    """
    incumbent = trainer.initial(counts_C)
    metric = trainer.config.sampler.metric
    # Any finite epoch beats this key, even one whose metric is NaN (which counts as -inf).
    best, best_key = incumbent, (-math.inf, -math.inf)
    results = []
    for epoch in range(1, epochs + 1):
        shown_C = counts_C if shows_synthetic(trainer.config.sampler, epoch) else np.zeros_like(counts_C)
        result = trainer.train_epoch(incumbent, shown_C, episode_index=0)
        if not result.finite:
            lr = trainer.config.classifier.lr
            raise UserError(f"the loss is not finite in epoch {epoch}: lower classifier.lr, which is {lr}")
        incumbent = trainer.trained()
        results.append(result)
        if on_epoch_end is not None:
            on_epoch_end(result)
        if (key := selection_key(result, metric)) > best_key:
            best, best_key = incumbent, key
    return best, results


def selection_key(result: EpochResult, metric: str) -> tuple[float, float]:
    """Return a key whose largest value is the best result: by `metric`, ties by lower validation loss."""
    value = result.metrics[metric]
    return (-math.inf if math.isnan(value) else value, -result.val_loss)
