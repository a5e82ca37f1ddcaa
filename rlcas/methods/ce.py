"""Plain cross-entropy, which knows nothing of the class sizes."""

from __future__ import annotations

from rlcas.methods.method import Method

CE = Method(title="Cross-entropy", source="", settings={"classifier.loss": "ce"})
