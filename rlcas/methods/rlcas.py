"""RL-CAS over images of the sketch-supervised synthesiser: both phases of the paper."""

from __future__ import annotations

from rlcas.methods.method import LEARNING_SEARCH, Method, k_passes
from rlcas.methods.paper_rows import BASELINE

RLCAS = Method(
    title="Ours",
    source="Chen et al. 2025",
    engine="episodes",
    pool="sketch",
    settings=BASELINE.settings,
    search=LEARNING_SEARCH,
    passes=k_passes,
)
