"""The compared methods by name. A method is a file with a `Method`, and a line here."""

from __future__ import annotations

from rlcas.meta import ClassifierMeta
from rlcas.methods.baseline import BASELINE
from rlcas.methods.ce import CE
from rlcas.methods.method import Method
from rlcas.methods.objective import Objective
from rlcas.registry import lookup

METHODS: dict[str, Method] = {
    "baseline": BASELINE,
    "ce": CE,
}
"""Rows of `rlcas compare` by name, and whose training step `classifier.method` names; from outside comes
package.module:object, a Method."""


def build_objective(meta: ClassifierMeta) -> Objective:
    """Return the network that `classifier.method` trains, with weights from torch's global generator.

    Raises:
        UserError: the method or the backbone is unknown, or its weights cannot be had.
    """
    return lookup(meta.classifier.method, METHODS, "classifier.method").objective(meta)
