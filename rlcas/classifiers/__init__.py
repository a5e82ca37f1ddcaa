"""The classifier: its backbone, snapshots of its state, inference."""

from rlcas.classifiers.build import CLASSIFIERS, build_classifier

__all__ = ["CLASSIFIERS", "build_classifier"]
