"""SynClass after FreeMask's filter and re-sampling by hardness, adapted to classification."""

from __future__ import annotations

from rlcas.methods.method import MIX_SEARCH, Method
from rlcas.methods.paper_rows import BASELINE

SYN_CLASS_RESAMPLING = Method(
    title="+ SynClass + Re-sampling",
    source="Yang et al. 2023",
    pool="class",
    select="freemask",
    settings=BASELINE.settings,
    search={**MIX_SEARCH, "method.freemask.tolerance": (1.1, 1.25, 1.5)},
)
