"""K episodes an epoch under the initial composition, of which the best lives on: selection alone.

Under one composition and one order the K episodes would hardly differ, and there would be nothing to select: here each
draws its own order and augmentation of the real images.
"""

from __future__ import annotations

from rlcas.methods.method import INITIAL_SEARCH, Method, k_passes, with_agents
from rlcas.methods.paper_rows import BASELINE

CONSTANT = Method(
    title="Constant composition, best of K",
    source="control of RL-CAS",
    engine="episodes",
    pool="sketch",
    settings={
        **BASELINE.settings,
        **with_agents("constant"),
        "sampler.common_random_numbers": False,
    },
    search=INITIAL_SEARCH,
    passes=k_passes,
    control=True,
)
