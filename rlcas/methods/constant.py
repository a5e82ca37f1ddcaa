"""K episodes an epoch under the initial composition, of which the best lives on: selection alone."""

from __future__ import annotations

from rlcas.methods.baseline import BASELINE
from rlcas.methods.method import SAMPLER_SEARCH, Method, k_passes, with_agents

CONSTANT = Method(
    title="Constant composition, best of K",
    source="control of RL-CAS",
    engine="episodes",
    pool="sketch",
    settings={**BASELINE.settings, **with_agents("constant")},
    search=SAMPLER_SEARCH,
    passes=k_passes,
    control=True,
)
