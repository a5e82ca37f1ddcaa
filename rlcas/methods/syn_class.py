"""The Baseline with images of the synthesiser without its sketch branch, in an unchanging mixture."""

from __future__ import annotations

from rlcas.methods.method import MIX_SEARCH, Method
from rlcas.methods.paper_rows import BASELINE

SYN_CLASS = Method(
    title="+ SynClass",
    source="the paper, Table 2",
    pool="class",
    settings=BASELINE.settings,
    search=MIX_SEARCH,
)
