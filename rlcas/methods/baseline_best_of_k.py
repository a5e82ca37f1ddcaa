"""The Baseline from K seeds, of which validation takes one: RL-CAS's compute without RL."""

from __future__ import annotations

from rlcas.methods.method import Method, k_passes
from rlcas.methods.paper_rows import BASELINE

BASELINE_BEST_OF_K = Method(
    title="Baseline, best of K seeds",
    source="control of RL-CAS",
    engine="best_of_k",
    settings=BASELINE.settings,
    passes=k_passes,
    control=True,
)
