"""Settings of `rlcas sweep`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from rlcas.config.values import PositiveCount, Settings


def _dotted(over: Any, prefix: str = "") -> Any:
    """Return {"sampler": {"k": [1, 3]}} as {"sampler.k": (1, 3)}; one value becomes a tuple, text stays."""
    if not isinstance(over, dict):
        return over
    flat: dict[str, Any] = {}
    for name, values in over.items():
        if isinstance(values, dict):
            flat |= _dotted(values, f"{prefix}{name}.")
        else:
            # Text stays whole: commas in it separate values, or the members of one that is a list.
            flat[f"{prefix}{name}"] = values if isinstance(values, str | list | tuple) else (values,)
    return flat


class SweepConfig(Settings):
    """`rlcas sweep`: which settings are tried, how, and how many in parallel."""

    over: Annotated[dict[str, str | tuple[Any, ...]], BeforeValidator(_dotted)] = {  # noqa: RUF012 - pydantic copies it
        "sampler.baseline_gamma": (0.5, 0.9, 0.99),
        "sampler.k": (1, 3),
        "sampler.reward": ("cubic", "linear"),
    }
    """SETTING=VALUES, once for each setting: values as 1,3 (values that are lists are separated by ;), or a range as
    1e-4..1e-2, which is searched on a log scale if both ends are positive and a factor of ten or more apart."""
    search: Literal["grid", "random", "asha", "pbt"] = "grid"
    """grid: every combination; random: `trials` draws; asha: draws, the worse of which stop early; pbt: a population,
    the worse members of which continue from the better ones with other values."""
    trials: Annotated[int, Field(ge=2)] = 12
    """Number of draws of random and asha; size of the population of pbt."""
    concurrent: PositiveCount | None = None
    """Trials that run in parallel. None: as many as fit the cores, or the GPUs, with `sampler.k` episodes each."""
    metric: str | None = None
    """Validation metric of a trial, larger is better: a name in rlcas.metrics.SELECTING. None: sampler.metric."""
    grace_epochs: PositiveCount = 4
    """asha: epochs before a trial may be stopped; the next decisions are after 3, 9, ... times as many."""
    exchange_epochs: PositiveCount = 4
    """pbt: epochs between exchanges."""
