"""SynSketch with real training images again in the place of synthetic ones."""

from __future__ import annotations

from rlcas.methods.baseline import BASELINE
from rlcas.methods.method import MIX_SEARCH, Method

OVERSAMPLING = Method(
    title="Over-sampling",
    source="control of + SynSketch",
    pool="real",
    settings=BASELINE.settings,
    search=MIX_SEARCH,
    control=True,
)
