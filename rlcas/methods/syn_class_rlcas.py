"""RL-CAS over images of the synthesiser without its sketch branch."""

from __future__ import annotations

from rlcas.methods.method import LEARNING_SEARCH, Method, k_passes
from rlcas.methods.paper_rows import BASELINE

SYN_CLASS_RLCAS = Method(
    title="+ SynClass + RL-CAS",
    source="the paper, Table 2",
    engine="episodes",
    pool="class",
    settings=BASELINE.settings,
    search=LEARNING_SEARCH,
    passes=k_passes,
)
