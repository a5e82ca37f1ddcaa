"""What agents may see: numbers that follow from the incumbent and the settings alone.

To add one, write the function and its line in OBSERVATIONS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box

from rlcas import registry
from rlcas.agents import agents_named
from rlcas.config import SamplerConfig
from rlcas.errors import UserError
from rlcas.metrics import CLASS_SIGNALS, signal_of
from rlcas.types import Float32, Incumbent, Int64


class Observation(NamedTuple):
    """One thing to see: how it is read, its largest value (the smallest is 0), and whether each class has its own."""

    read: Callable[[Incumbent, SamplerConfig], np.ndarray]
    high: Callable[[SamplerConfig], float]
    per_class: bool
    """Whether there is one number a class, or one for all."""


def composition(incumbent: Incumbent, sampler: SamplerConfig) -> np.ndarray:
    """Return [C]: synthetic images of each class in a mini-batch."""
    return incumbent.counts_C


def progress(incumbent: Incumbent, sampler: SamplerConfig) -> np.ndarray:
    """Return [1]: share of the run's epochs that are trained."""
    return np.array([incumbent.epoch / sampler.epochs])


def metric(incumbent: Incumbent, sampler: SamplerConfig) -> np.ndarray:
    """Return [1]: the incumbent's validation metric; 0 before the first epoch."""
    return np.array([incumbent.result.metrics[sampler.metric] if incumbent.result else 0.0])


def recall(incumbent: Incumbent, sampler: SamplerConfig) -> np.ndarray:
    """Return [C]: the incumbent's validation recall by class; 0 before the first epoch or without images."""
    if incumbent.result is None:
        return np.zeros(len(incumbent.counts_C))
    return np.nan_to_num(incumbent.result.per_class_recall_C)


def signal(incumbent: Incumbent, sampler: SamplerConfig) -> np.ndarray:
    """Return [C]: the incumbent's `sampler.signal` in [0, 1], e^x of a log-likelihood; 0 as for `recall`."""
    if incumbent.result is None:
        return np.zeros(len(incumbent.counts_C))
    as_share = registry.lookup(sampler.signal, CLASS_SIGNALS, "sampler.signal").as_share
    return np.nan_to_num(as_share(signal_of(incumbent.result, sampler.signal)))


OBSERVATIONS: dict[str, Observation] = {
    "composition": Observation(composition, lambda sampler: sampler.max_count, per_class=True),
    "progress": Observation(progress, lambda sampler: 1.0, per_class=False),
    "metric": Observation(metric, lambda sampler: 1.0, per_class=False),
    "recall": Observation(recall, lambda sampler: 1.0, per_class=True),
    "signal": Observation(signal, lambda sampler: 1.0, per_class=True),
}


def names_of(sampler: SamplerConfig) -> tuple[str, ...]:
    """Return what is seen: `sampler.observation`, or where that is None what the agents observe."""
    return sampler.observation or agents_named(sampler.agents).observes


class Observer:
    """Reads what the agents see; the names are looked up once.

    Args:
        sampler: the sampler's settings.

    Raises:
        UserError: a name is unknown, or is not an `Observation`.
    """

    def __init__(self, sampler: SamplerConfig) -> None:
        self._sampler = sampler
        self._entries = [_observation(name) for name in names_of(sampler)]

    def observe(self, incumbent: Incumbent) -> Float32:
        """Return [D] float32: the values of all entries, one after another."""
        parts = [entry.read(incumbent, self._sampler) for entry in self._entries]
        return np.concatenate(parts).astype(np.float32)

    def space(self, num_classes: int) -> Box:
        """Return the space of `observe`."""
        highs = [
            np.full(num_classes if entry.per_class else 1, entry.high(self._sampler), np.float32)
            for entry in self._entries
        ]
        return Box(0.0, np.concatenate(highs), dtype=np.float32)

    def agent_indices(self, num_classes: int) -> Int64:
        """Return [C, number of names] int64: which entries of `observe` agent i sees, its own and the shared."""
        start, columns = 0, []
        for entry in self._entries:
            size = num_classes if entry.per_class else 1
            # A shared number: the same index for all agents.
            columns.append(np.broadcast_to(start + np.arange(size), num_classes))
            start += size
        return np.stack(columns, axis=1)


def _observation(name: str) -> Observation:
    found = registry.lookup(name, OBSERVATIONS, "sampler.observation")
    if not isinstance(found, Observation):
        raise UserError(f"sampler.observation {name!r} is not an envs.observations.Observation: name one")
    return found
