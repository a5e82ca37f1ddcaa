"""The declaration of a row of the comparison; whatever it does not declare is the same for every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

from rlcas.classifiers.meta import ClassifierMeta
from rlcas.config import RunConfig
from rlcas.config.sampler import ONLY_FOR, WITHOUT_GRADIENT
from rlcas.methods.objective import LossOnLogits, Objective
from rlcas.settings import flags

PoolName = Literal["real", "sketch", "image", "class", "mgdm", "skin_sdm"]
"""Source of the added images: the real training images again, or a pool of the synthesiser with its sketch branch
(sketch), from real images (image), without the branch (class), or of another generator."""
Engine = Literal["fit", "episodes", "best_of_k"]
"""fit: one classifier under one composition. episodes: the sampler's K episodes an epoch. best_of_k: K classifiers
from K seeds, the best on validation images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A row of the comparison: all in which it differs from the others."""

    title: str
    """Its name in the tables."""
    source: str
    """Its paper, or the row that it is a control of."""
    objective: Callable[[ClassifierMeta], Objective] = LossOnLogits
    engine: Engine = "fit"
    pool: PoolName | None = None
    select: str | None = None
    """Name in `rlcas.training.pool_selection.SELECTIONS` of what chooses images of the pool for the row."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its own settings by dotted keys, over those of the comparison."""
    search: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Values that `--compare.tune` tries besides the learning rate, by dotted keys."""
    replays: str | None = None
    """Row whose compositions it trains with, epoch by epoch: those of that row's cell under the next seed."""
    needs: str | None = None
    """Setting that must name foundation weights."""
    passes: Callable[[RunConfig], int] = lambda config: 1
    """Forward and backward passes of a classifier for each image of an epoch: its compute relative to the
    Baseline's."""
    control: bool = False
    """Whether it is a control, which the paper does not have."""


WHOLE_EPISODES: Mapping[str, Any] = {
    "sampler.episode": "whole",
    "sampler.handover": "best",
    "sampler.merge_from": 1,
    "sampler.real_first": 0.0,
    "sampler.real_last": 0.0,
}
"""The paper's episodes: K whole epochs from one incumbent, of which the best is kept."""
SHARES_IN_TURN: Mapping[str, Any] = {
    "sampler.episode": "share",
    "sampler.handover": "in_turn",
    "sampler.merge_from": 1,
}
"""Episodes that are shares of an epoch, each from what the one before it reached: an epoch at the Baseline's cost."""
MIX_SEARCH: Mapping[str, Sequence[Any]] = {"compare.synthetic_ratio": (0.5, 1.0, 2.0)}
"""Search of a constant composition."""
INITIAL_SEARCH: Mapping[str, Sequence[Any]] = {"sampler.initial_count": (1, 2, 4)}
"""Search of a composition that stays at the initial counts."""
SAMPLER_SEARCH: Mapping[str, Sequence[Any]] = {
    **INITIAL_SEARCH,
    "sampler.action_step": (1, 2),
}
"""Search of compositions that change."""
LEARNING_SEARCH: Mapping[str, Sequence[Any]] = {**SAMPLER_SEARCH, "sampler.lr": (1e-3, 1e-2, 5e-2)}
"""Search of compositions that change by agents trained by gradient."""


def with_agents(name: str) -> dict[str, Any]:
    """Return settings that replace the user's agents, and reset the settings that the new agents do not accept."""
    # A replay fixes the actions of a run, and is refused together with agents.
    own: dict[str, Any] = {"sampler.agents": name, "sampler.replay": None}
    if name in WITHOUT_GRADIENT:
        own["sampler.entropy_bonus"] = 0.0
    return own | {f"sampler.{setting}": None for setting, theirs in ONLY_FOR.items() if name not in theirs}


def k_passes(config: RunConfig) -> int:
    """Return K: every image is trained on by each of the K classifiers."""
    return config.sampler.k


def episode_passes(config: RunConfig) -> int:
    """Return the passes over each image in an epoch's episodes: K whole ones, or one that K shares divide."""
    return config.sampler.passes


def missing_weights(method: Method, config: RunConfig) -> str | None:
    """Return a message on how to give the foundation weights that a row lacks; None if it lacks none."""
    if method.needs is None or reduce(getattr, method.needs.split("."), config) is not None:
        return None
    meaning = " ".join(next(flag.help for flag in flags() if flag.key == method.needs).split())
    return f"weights not given: --{method.needs} takes them: {meaning[0].lower()}{meaning[1:].rstrip('.')}"
