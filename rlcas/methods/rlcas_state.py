"""RL-CAS with agents that see the state of training and are taught by their own class's signal."""

from __future__ import annotations

from rlcas.methods.method import SAMPLER_SEARCH, Method, k_passes, with_agents
from rlcas.methods.paper_rows import BASELINE

RLCAS_STATE = Method(
    title="Ours, agents state",
    source="RL-CAS with agents of ours",
    engine="episodes",
    pool="sketch",
    settings={**BASELINE.settings, **with_agents("state")},
    search={**SAMPLER_SEARCH, "sampler.lr": (0.05, 0.15, 0.5)},
    passes=k_passes,
)
