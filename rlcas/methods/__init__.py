"""The compared methods by name. A method is a file with a `Method`, and a line here."""

from __future__ import annotations

from rlcas.classifiers.meta import ClassifierMeta
from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.methods.cbfocal import CBFOCAL
from rlcas.methods.control_rows import (
    BASELINE_BEST_OF_K,
    BASELINE_EMA,
    CONSTANT,
    OVERSAMPLING,
    PBT,
    RLCAS_DOSE,
    RLCAS_DOSE_FROZEN,
    RLCAS_DOSE_PERMUTED,
    RLCAS_DOSE_REPLAYED,
    RLCAS_FROZEN,
    RLCAS_K1,
    RLCAS_RESPONSE,
    RLCAS_STATE,
    SYN_IMAGE,
)
from rlcas.methods.ensemble import BASELINE_ENSEMBLE
from rlcas.methods.glmc import GLMC
from rlcas.methods.lift import LIFT
from rlcas.methods.logit_adjust import LOGIT_ADJUST
from rlcas.methods.method import Method
from rlcas.methods.ncl import NCL
from rlcas.methods.objective import Objective
from rlcas.methods.paper_rows import (
    BASELINE,
    CE,
    MGDM,
    RLCAS_ROW,
    SKIN_SDM,
    SYN_CLASS,
    SYN_CLASS_RESAMPLING,
    SYN_CLASS_RLCAS,
    SYN_SKETCH,
)
from rlcas.methods.proco import PROCO
from rlcas.registry import lookup

METHODS: dict[str, Method] = {
    "baseline": BASELINE,
    "ce": CE,
    "cbfocal": CBFOCAL,
    "logit_adjust": LOGIT_ADJUST,
    "lift": LIFT,
    "proco": PROCO,
    "ncl": NCL,
    "glmc": GLMC,
    "mgdm": MGDM,
    "skin_sdm": SKIN_SDM,
    "syn_class": SYN_CLASS,
    "syn_sketch": SYN_SKETCH,
    "syn_class_resampling": SYN_CLASS_RESAMPLING,
    "syn_class_rlcas": SYN_CLASS_RLCAS,
    "rlcas": RLCAS_ROW,
    "rlcas_state": RLCAS_STATE,
    "rlcas_response": RLCAS_RESPONSE,
    "rlcas_dose": RLCAS_DOSE,
    "rlcas_dose_frozen": RLCAS_DOSE_FROZEN,
    "rlcas_dose_permuted": RLCAS_DOSE_PERMUTED,
    "rlcas_dose_replayed": RLCAS_DOSE_REPLAYED,
    "rlcas_frozen": RLCAS_FROZEN,
    "rlcas_k1": RLCAS_K1,
    "constant": CONSTANT,
    "oversampling": OVERSAMPLING,
    "syn_image": SYN_IMAGE,
    "pbt": PBT,
    "baseline_ema": BASELINE_EMA,
    "baseline_best_of_k": BASELINE_BEST_OF_K,
    "baseline_ensemble": BASELINE_ENSEMBLE,
}
"""Rows of `rlcas compare` by name. `classifier.method` takes the same names, for a row's training step; a Method of
your own is named as package.module:object."""


def weight_settings() -> set[str]:
    """Return the settings that name foundation weights; rows that need them are skipped without."""
    return {method.needs for method in METHODS.values() if method.needs is not None}


def check_training_step(config: RunConfig) -> None:
    """Check that the training step of `classifier.method` can do what the settings of the sampler ask of it.

    Raises:
        UserError: the method is unknown, or it cannot.
    """
    name, weight = config.classifier.method, config.sampler.synthetic_weight
    objective = lookup(name, METHODS, "classifier.method").objective
    # A function that builds an objective has none of its attributes, unless it is given them.
    if weight != 1 and not getattr(objective, "weighs_images", False):
        raise UserError(
            f"sampler.synthetic_weight {weight} is not possible with classifier.method {name!r}, whose loss does not "
            "weigh images: set it to 1, or use another method"
        )
    if config.sampler.batch_norm == "real" and not getattr(objective, "normalises_each_image_once", False):
        raise UserError(
            f"sampler.batch_norm real is not possible with classifier.method {name!r}, which has no BatchNorm that "
            "sees each image once: set it to all, or use another method"
        )


def build_objective(meta: ClassifierMeta) -> Objective:
    """Return the network that `classifier.method` trains, with weights from torch's global generator.

    Raises:
        UserError: the method or the backbone is unknown, or its weights cannot be loaded.
    """
    return lookup(meta.classifier.method, METHODS, "classifier.method").objective(meta)
