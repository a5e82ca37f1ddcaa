"""RL-CAS with one episode an epoch: the agents without the selection among episodes.

One episode leaves nothing to compare, so the agents are taught by the paper's team reward over the baseline of
eq. 2, whatever reward they have in the other rows.
"""

from __future__ import annotations

from rlcas.methods.method import LEARNING_SEARCH, Method
from rlcas.methods.paper_rows import BASELINE

RLCAS_K1 = Method(
    title="RL-CAS, K = 1",
    source="control of RL-CAS",
    engine="episodes",
    pool="sketch",
    settings={
        **BASELINE.settings,
        "sampler.k": 1,
        "sampler.reward": "cubic",
        "sampler.advantages": "baseline",
        "sampler.team_share": None,
    },
    search=LEARNING_SEARCH,
    control=True,
)
