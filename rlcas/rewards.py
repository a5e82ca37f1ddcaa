"""Rewards: from what an epoch gave to the one number that all agents share.

A reward takes an epoch's result and the name of the metric ε, and returns the number and its parts by name.
To add one, write the function and its line in REWARDS.
"""

from __future__ import annotations

from collections.abc import Callable

from rlcas.types import EpochResult

Reward = Callable[[EpochResult, str], tuple[float, dict[str, float]]]

CUBIC_OFFSET = 0.04
"""The 0.04 of the paper's reward."""


def cubic(result: EpochResult, metric: str) -> tuple[float, dict[str, float]]:
    """Return (ε + 0.04)³, the paper's reward (section 2.2)."""
    value = result.metrics[metric]
    return (value + CUBIC_OFFSET) ** 3, {metric: value}


def linear(result: EpochResult, metric: str) -> tuple[float, dict[str, float]]:
    """Return ε itself."""
    value = result.metrics[metric]
    return value, {metric: value}


REWARDS: dict[str, Reward] = {
    "cubic": cubic,
    "linear": linear,
}
