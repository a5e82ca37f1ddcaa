"""Features of images [N, D] by the name of their extractor, for the scores of synthetic images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlcas.classifiers.build import require_timm_model
from rlcas.classifiers.inference import features_of
from rlcas.config import ScoringConfig
from rlcas.errors import UserError
from rlcas.evaluation.timm_features import in_batches, resized, timm_features
from rlcas.registry import lookup
from rlcas.training.saved_classifier import Classifier, predict
from rlcas.types import Float32, Uint8

ExtractFeatures = Callable[[Uint8], Float32]
MOST_PIXELS_PX = 32


@dataclass(frozen=True, slots=True)
class FeatureExtractor:
    """A function from uint8 images [N, channels, H, W] to features [N, D], with its description."""

    features: ExtractFeatures
    described: str
    """For reports and errors."""

    def __call__(self, images_NCHW: Uint8) -> Float32:
        """Return features [N, D].

        Raises:
            UserError: a function from outside returned something else, or a feature is not finite.
        """
        found = np.asarray(self.features(images_NCHW))
        if found.ndim != 2 or len(found) != len(images_NCHW):
            raise UserError(
                f"synth.scoring.extractor returned an array of shape {list(found.shape)} for {len(images_NCHW)} "
                f"images ({self.described}): it must return features [{len(images_NCHW)}, D]"
            )
        if not np.isfinite(found).all():
            raise UserError(f"synth.scoring.extractor returned features that are not finite ({self.described})")
        return found


def build_extractor(
    scoring: ScoringConfig, judge: Callable[[], Classifier], device: torch.device
) -> FeatureExtractor:
    """Return the extractor of the setting `synth.scoring.extractor`.

    Args:
        scoring: the settings.
        judge: returns the classifier of real images; called only by the extractor `classifier`.
        device: where a timm model runs.

    Raises:
        UserError: the name is unknown, or a timm model's weights cannot be loaded or do not fit.
    """
    name = scoring.extractor
    if name in EXTRACTORS:
        return EXTRACTORS[name](judge)
    if ":" in name:
        return FeatureExtractor(lookup(name, {}, "synth.scoring.extractor"), name)
    return FeatureExtractor(*timm_features(name, scoring.extractor_weights, device))


def check_extractor(scoring: ScoringConfig) -> None:
    """Check the settings of the extractor before anything starts.

    Raises:
        UserError: the extractor's name is unknown, or the file of weights is missing or not for this extractor.
    """
    name, weights = scoring.extractor, scoring.extractor_weights
    if ":" in name:
        lookup(name, {}, "synth.scoring.extractor")
    elif name not in EXTRACTORS:
        require_timm_model(name, "synth.scoring.extractor", EXTRACTORS)
    if weights is not None and not _is_timm_model(name):
        raise UserError(
            f"synth.scoring.extractor_weights {weights} are for a timm model, but synth.scoring.extractor is "
            f"{name!r}: name the model there, or omit the weights"
        )
    if weights is not None and not weights.is_file():
        raise UserError(f"synth.scoring.extractor_weights {weights} is not a file: name one, or omit it")


def require_weights(scoring: ScoringConfig) -> None:
    """Load the weights of a timm extractor once, so that a fault ends the run early.

    Raises:
        UserError: they cannot be loaded or do not fit.
    """
    if _is_timm_model(scoring.extractor):
        timm_features(scoring.extractor, scoring.extractor_weights, torch.device("cpu"))


def penultimate(judge: Callable[[], Classifier]) -> FeatureExtractor:
    """Return the extractor of a classifier's penultimate features: the input of its last linear layer.

    Raises:
        UserError: the classifier has no linear layer.
    """
    classifier = judge()
    backbone, width = classifier.meta.classifier.backbone, classifier.meta.classifier.width

    def collecting() -> contextlib.AbstractContextManager[list[Tensor]]:
        return features_of(classifier.model, backbone, or_else=", or another synth.scoring.extractor")

    with collecting():
        pass  # so that a classifier without a linear layer is refused now

    def features(images_NCHW: Uint8) -> Float32:
        # Taken in passing: `predict` returns probabilities alone.
        with collecting() as captured:
            predict(classifier, images_NCHW)
        return torch.cat(captured).numpy()

    return FeatureExtractor(
        features, f"penultimate features of the Baseline's {backbone}" + (f" of width {width}" if width else "")
    )


def pixels(_: Callable[[], Classifier]) -> FeatureExtractor:
    """Return the extractor of pixels in [0, 1], of images shrunk to 32 px at most; it needs no network."""

    def features(images_NCHW: Uint8) -> Float32:
        def flat(batch: Tensor) -> Tensor:
            return resized(batch, [min(side, MOST_PIXELS_PX) for side in batch.shape[2:]], "area").flatten(1)

        return in_batches(flat, images_NCHW, torch.device("cpu"))

    return FeatureExtractor(features, f"pixels of images shrunk to {MOST_PIXELS_PX} px at most")


EXTRACTORS: dict[str, Callable[[Callable[[], Classifier]], FeatureExtractor]] = {
    "classifier": penultimate,
    "pixels": pixels,
}
"""Extractors that are not timm models: name -> builder(judge)."""


def _is_timm_model(name: str) -> bool:
    return name not in EXTRACTORS and ":" not in name
