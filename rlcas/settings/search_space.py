"""The search space of a sweep: choices and ranges of settings, their grid, random draws, and steps of PBT."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.seeding import rng_for
from rlcas.settings.cli_flags import kinds_of, unknown_setting
from rlcas.settings.resolution import of_sweep

Point = dict[str, Any]
"""Dotted setting -> its value in one trial."""

SIGNIFICANT_DIGITS = 4
LOG_FROM_FACTOR = 10
"""A range is searched on a log scale if its ends are positive and at least this factor apart."""
PERTURBING_FACTORS = (0.8, 1.25)
"""Factors of a step of population-based training (Jaderberg et al. 2017), each the inverse of the other."""
RESAMPLED = 0.25
"""Probability that population-based training draws a new value instead of making a step."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The listed values of a setting."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """Return the values that must be valid for all to be valid: each of them."""
        return self.values

    def __str__(self) -> str:
        return as_text(self.values)

    def draw(self, rng: np.random.Generator) -> Any:
        """Return one of the values."""
        return self.values[rng.integers(len(self.values))]

    def step(self, value: Any, rng: np.random.Generator) -> Any:
        """Return the value before or after `value`; an end stays at itself if the step leaves the list."""
        index = self.values.index(value) + rng.choice((-1, 1))
        return self.values[min(max(index, 0), len(self.values) - 1)]


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers from `low` to `high`, both included; only integers if `whole`."""

    low: float
    high: float
    whole: bool

    @property
    def ends(self) -> tuple[float, float]:
        """Return the values that must be valid for all to be valid: the two ends."""
        return self._number(self.low), self._number(self.high)

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"

    @property
    def log(self) -> bool:
        """Return whether it is searched on a log scale: its ends are positive and a factor of ten or more apart."""
        return self.low > 0 and self.high >= LOG_FROM_FACTOR * self.low

    def draw(self, rng: np.random.Generator) -> float:
        """Return a number, uniform on the scale; integers are equally likely on a linear scale."""
        # Integers are rounded down, so that the last one needs a whole step above it to be as likely as the
        # others.
        low, high, share = self.low, self.high + self.whole, rng.random()
        return self._number(low * (high / low) ** share if self.log else low + share * (high - low))

    def step(self, value: float, rng: np.random.Generator) -> float:
        """Return `value` times one of the factors, clipped to the range; an integer changes by at least one."""
        factor = PERTURBING_FACTORS[rng.integers(2)]
        change = value * (factor - 1)
        if self.whole:
            change = math.copysign(max(1.0, abs(change)), factor - 1)
        return self._number(value + change)

    def _number(self, value: float) -> float:
        if self.whole:
            return int(min(max(math.floor(value), self.low), self.high))
        # Rounded before it is clipped, as rounding may leave the range; what is trained is what the tables
        # show.
        return min(max(float(f"{value:.{SIGNIFICANT_DIGITS}g}"), self.low), self.high)


Space = dict[str, Choices | Range]


def space_of(over: Mapping[str, str | Sequence[Any]], stated: Mapping[str, Any]) -> Space:
    """Return the search space of `sweep.over`, its values parsed and validated.

    Args:
        over: dotted setting -> values, as text or as a list.
        stated: the other settings, together with which the values must be valid.

    Raises:
        UserError: a setting is unknown, or its values are invalid.
    """
    if not over:
        raise UserError("sweep.over is empty: name a setting, as in --over sampler.k=1,3")
    for key, values in over.items():
        if not kinds_of(key):
            raise UserError(f"sweep.over {named({key: values})}: {unknown_setting(key)}")
        if key == "out":
            raise UserError(
                f"sweep.over {named({key: values})}: every trial has its own folder below out: leave it out"
            )
    raw = {key: _range(key, values) or _choices(key, values) for key, values in over.items()}
    # A value is checked with the first values of the other settings, not in all combinations, which the plan
    # checks.
    firsts = {key: axis.ends[0] for key, axis in raw.items()}
    return {key: _typed(key, axis, firsts, stated) for key, axis in raw.items()}


def grid(space: Space) -> list[Point]:
    """Return every combination, the last setting changing fastest.

    Raises:
        UserError: a setting has a range of values.
    """
    for key, axis in space.items():
        if isinstance(axis, Range):
            raise UserError(
                f"sweep.over {key}={axis} is a range, which sweep.search grid cannot exhaust: "
                "list the values, or set sweep.search to random, asha or pbt"
            )
    values = [axis.ends for axis in space.values()]
    return [dict(zip(space, combination, strict=True)) for combination in itertools.product(*values)]


def draws(space: Space, number: int, seed: int) -> list[Point]:
    """Return `number` different random points of the space; fewer if it has fewer.

    Draw i depends on the seed and i alone, so that a larger number only adds points.
    """
    drawn: dict[str, Point] = {}
    for i in range(20 * number):  # a small space repeats itself, and one that is used up would never end
        if len(drawn) == number:
            break
        rng = rng_for(seed, "sweep", i)
        point = {key: axis.draw(rng) for key, axis in space.items()}
        # Two points with the same text would be the same trial.
        drawn.setdefault(named(point), point)
    return list(drawn.values())


def perturbed(point: Point, space: Space, rng: np.random.Generator) -> Point:
    """Return the next values of a member of the population: a step from each, or sometimes a new draw."""
    return {
        # Every setting takes draws of the one generator in the order of the space: the order is part of the
        # bits.
        key: axis.draw(rng) if rng.random() < RESAMPLED else axis.step(point[key], rng)
        for key, axis in space.items()
    }


def value_of(config: RunConfig, key: str) -> Any:
    """Return the value of a dotted setting."""
    return operator.attrgetter(key)(config)


def named(point: Mapping[str, Any]) -> str:
    """Return a point as typed on the command line: sampler.k=3 sampler.reward=cubic."""
    return " ".join(f"{key}={as_text(value)}" for key, value in point.items())


def as_text(value: Any) -> str:
    """Return a setting's value as typed on the command line."""
    if isinstance(value, tuple | list):
        return ",".join(map(as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _range(key: str, values: str | Sequence[Any]) -> Range | None:
    """Return LOW..HIGH as a range; None if the values are not a range."""
    text = values if isinstance(values, str) else str(values[0]) if len(values) == 1 else ""
    low_text, _, high_text = text.partition("..")
    try:
        low, high = float(low_text), float(high_text)
    except ValueError:
        return None
    kinds = kinds_of(key)
    whole = float not in kinds
    if not kinds & {int, float}:
        raise UserError(f"sweep.over {key}={text} is a range, but {key} is not a number: list its values")
    if not low < high or (whole and not (low.is_integer() and high.is_integer())):
        raise UserError(
            f"sweep.over {key}={text}: write a range as LOW..HIGH, the smaller first"
            + (f", in whole numbers for {key}" if whole else "")
        )
    return Range(low, high, whole)


def _choices(key: str, values: str | Sequence[Any]) -> Choices:
    if isinstance(values, str):
        kinds = kinds_of(key)
        lists = ";" in values or (tuple in kinds and int not in kinds)
        parts = [part.strip() for part in values.strip("[] ").split(";" if lists else ",")]
        values = [part for part in parts if part]
    if len(values) < 2:
        given = as_text(values)
        raise UserError(
            f"sweep.over {key}={given} has one value: list at least two, or set --{key} {given} for all trials"
        )
    return Choices(tuple(values))


def _typed(key: str, axis: Choices | Range, firsts: Point, stated: Mapping[str, Any]) -> Choices | Range:
    """Return the values parsed, each validated together with the first values of the other settings."""
    typed = tuple(_checked(key, value, firsts, stated) for value in axis.ends)
    if isinstance(axis, Range):
        return axis
    if twice := [value for i, value in enumerate(typed) if value in typed[:i]]:
        raise UserError(
            f"sweep.over {key}={as_text(axis.values)} holds {as_text(twice[0])} twice: leave one out"
        )
    return Choices(typed)


def _checked(key: str, value: Any, firsts: Point, stated: Mapping[str, Any]) -> Any:
    try:
        resolved = of_sweep(stated, {**firsts, key: value})
    except UserError as error:
        raise UserError(f"sweep.over {named({key: value})}: {error}") from None
    # As pydantic parsed it, so that points compare equal to settings.
    return value_of(resolved, key)
