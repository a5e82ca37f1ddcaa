"""The compared methods by name. A method is a file with a `Method`, and a line here."""

from __future__ import annotations

from rlcas.meta import ClassifierMeta
from rlcas.methods.baseline import BASELINE
from rlcas.methods.cbfocal import CBFOCAL
from rlcas.methods.ce import CE
from rlcas.methods.glmc import GLMC
from rlcas.methods.logit_adjust import LOGIT_ADJUST
from rlcas.methods.method import Method
from rlcas.methods.ncl import NCL
from rlcas.methods.objective import Objective
from rlcas.methods.proco import PROCO
from rlcas.registry import lookup

METHODS: dict[str, Method] = {
    "baseline": BASELINE,
    "ce": CE,
    "cbfocal": CBFOCAL,
    "logit_adjust": LOGIT_ADJUST,
    "proco": PROCO,
    "ncl": NCL,
    "glmc": GLMC,
}
"""Rows of `rlcas compare` by name, and whose training step `classifier.method` names; from outside comes
package.module:object, a Method."""


def build_objective(meta: ClassifierMeta) -> Objective:
    """Return the network that `classifier.method` trains, with weights from torch's global generator.

    Raises:
        UserError: the method or the backbone is unknown, or its weights cannot be had.
    """
    return lookup(meta.classifier.method, METHODS, "classifier.method").objective(meta)
