"""RL-CAS whose policy stays uniform: the best of K random walks, without learning."""

from __future__ import annotations

from rlcas.methods.method import SAMPLER_SEARCH, Method, k_passes, with_agents
from rlcas.methods.paper_rows import BASELINE

RLCAS_FROZEN = Method(
    title="RL-CAS, frozen policy",
    source="control of RL-CAS",
    engine="episodes",
    pool="sketch",
    settings={**BASELINE.settings, **with_agents("uniform")},
    search=SAMPLER_SEARCH,
    passes=k_passes,
    control=True,
)
