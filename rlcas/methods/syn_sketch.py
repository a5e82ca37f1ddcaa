"""The Baseline with images of the sketch-supervised synthesiser, in an unchanging mixture."""

from __future__ import annotations

from rlcas.methods.method import MIX_SEARCH, Method
from rlcas.methods.paper_rows import BASELINE

SYN_SKETCH = Method(
    title="+ SynSketch",
    source="the paper, Table 2",
    pool="sketch",
    settings=BASELINE.settings,
    search=MIX_SEARCH,
)
