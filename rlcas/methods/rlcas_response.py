"""RL-CAS with agents that fit how their class responds to synthetic images."""

from __future__ import annotations

from rlcas.methods.method import SAMPLER_SEARCH, Method, k_passes, with_agents
from rlcas.methods.paper_rows import BASELINE

RLCAS_RESPONSE = Method(
    title="Ours, agents response",
    source="RL-CAS with agents of ours",
    engine="episodes",
    pool="sketch",
    settings={**BASELINE.settings, **with_agents("response")},
    search={**SAMPLER_SEARCH, "sampler.exploration": (0.1, 0.2, 0.4)},
    passes=k_passes,
)
