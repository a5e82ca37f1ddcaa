"""The Baseline of the paper: a plain classifier under Balanced Softmax."""

from __future__ import annotations

from rlcas.methods.method import Method

BASELINE = Method(title="Baseline", source="Ren et al. 2020", settings={"classifier.loss": "balanced_softmax"})
