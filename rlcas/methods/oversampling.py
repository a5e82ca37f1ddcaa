"""SynSketch with real training images again in the place of synthetic ones."""

from __future__ import annotations

from rlcas.methods.method import MIX_SEARCH, Method
from rlcas.methods.paper_rows import BASELINE

OVERSAMPLING = Method(
    title="Over-sampling",
    source="control of + SynSketch",
    pool="real",
    settings=BASELINE.settings,
    search=MIX_SEARCH,
    control=True,
)
