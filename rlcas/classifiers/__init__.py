"""Classifiers: backbones, snapshots of their state, inference."""

from rlcas.classifiers.build import CLASSIFIERS, build_classifier

__all__ = ["CLASSIFIERS", "build_classifier"]
