"""What a row of the comparison declares; all that it leaves open is the same for every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

from rlcas.classifiers.meta import ClassifierMeta
from rlcas.config import RunConfig
from rlcas.config.sampler import WITHOUT_GRADIENT
from rlcas.methods.objective import LossOnLogits, Objective
from rlcas.settings import flags

PoolName = Literal["real", "sketch", "class", "mgdm", "skin_sdm"]
"""Where added images come from: the real training images again, or a pool of the synthesiser with its sketch branch,
without it, or of another generator."""
Engine = Literal["fit", "episodes", "best_of_k"]
"""fit: one classifier under one composition. episodes: the sampler's K episodes an epoch. best_of_k: K classifiers
from K seeds, of which validation takes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A row: what is its own."""

    title: str
    """As the tables print it."""
    source: str
    """The paper, or what the row is a control of."""
    objective: Callable[[ClassifierMeta], Objective] = LossOnLogits
    engine: Engine = "fit"
    pool: PoolName | None = None
    select: str | None = None
    """Name in `rlcas.training.pool_selection.SELECTIONS` that picks images out of the pool before the row sees them."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its own settings by dotted keys, over those of the comparison."""
    search: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """What `--compare.tune` tries beside the learning rate: dotted keys to values."""
    needs: str | None = None
    """Setting that must name foundation weights."""
    passes: Callable[[RunConfig], int] = lambda config: 1
    """Forward and backward passes of a classifier for each image that the method sees: its compute over the
    Baseline's."""
    control: bool = False
    """Whether it is a control, which the paper does not have."""


MIX_SEARCH: Mapping[str, Sequence[Any]] = {"compare.synthetic_ratio": (0.5, 1.0, 2.0)}
"""What is tried of a mixture that stays the same."""
INITIAL_SEARCH: Mapping[str, Sequence[Any]] = {"sampler.initial_count": (1, 2, 4)}
"""What is tried of a composition that stays what it was at first."""
SAMPLER_SEARCH: Mapping[str, Sequence[Any]] = {
    **INITIAL_SEARCH,
    "sampler.action_step": (1, 2),
}
"""What is tried of compositions that change."""
LEARNING_SEARCH: Mapping[str, Sequence[Any]] = {**SAMPLER_SEARCH, "sampler.lr": (1e-3, 1e-2, 5e-2)}
"""What is tried of them where a gradient teaches the agents."""


def with_agents(name: str) -> dict[str, Any]:
    """Return the settings of other agents than the user's, without what these cannot have."""
    own: dict[str, Any] = {"sampler.agents": name, "sampler.replay": None}
    if name in WITHOUT_GRADIENT:
        own["sampler.entropy_bonus"] = 0.0
    if name != "response":
        own |= {"sampler.exploration": None, "sampler.memory_epochs": None}
    return own


def k_passes(config: RunConfig) -> int:
    """Return K: every image is trained on by each of the K episodes."""
    return config.sampler.k


def missing_weights(method: Method, config: RunConfig) -> str | None:
    """Return how to give the foundation weights that a row needs; None where it has all that it needs."""
    if method.needs is None or reduce(getattr, method.needs.split("."), config) is not None:
        return None
    meaning = " ".join(next(flag.help for flag in flags() if flag.key == method.needs).split())
    return f"weights not given: --{method.needs} takes them: {meaning[0].lower()}{meaning[1:].rstrip('.')}"
