"""Population-based training of the composition in place of agents."""

from __future__ import annotations

from rlcas.methods.method import SAMPLER_SEARCH, Method, k_passes, with_agents
from rlcas.methods.paper_rows import BASELINE

PBT = Method(
    title="Population-based training",
    source="control of RL-CAS",
    engine="episodes",
    pool="sketch",
    settings={**BASELINE.settings, **with_agents("pbt")},
    search=SAMPLER_SEARCH,
    passes=k_passes,
    control=True,
)
