"""Faults of the settings that are found before anything is read, made or started."""

from __future__ import annotations

import torch

from envs.observations import OBSERVATIONS
from rlcas.agents import AGENTS
from rlcas.classifiers import build_classifier
from rlcas.config import ClassifierConfig, RunConfig
from rlcas.errors import UserError
from rlcas.features import check_extractor
from rlcas.losses import LOSSES
from rlcas.metrics import SELECTING
from rlcas.registry import lookup
from rlcas.rewards import REWARDS
from synth.sketch import SKETCHES


def check_settings(config: RunConfig) -> None:
    """Look every name up that the run will need.

    Raises:
        UserError: a name is unknown, or preset `paper` lacks a file of weights.
    """
    lookup(config.classifier.loss, LOSSES, "classifier.loss")
    if config.sampler.metric not in SELECTING:
        known = ", ".join(sorted(SELECTING))
        raise UserError(f"sampler.metric {config.sampler.metric!r} is unknown: use one of {known}")
    lookup(config.sampler.reward, REWARDS, "sampler.reward")
    lookup(config.sampler.agents, AGENTS, "sampler.agents")
    lookup(config.synth.sketch, SKETCHES, "synth.sketch")
    for name in config.sampler.observation:
        lookup(name, OBSERVATIONS, "sampler.observation")
    _check_backbone(config.classifier)
    check_extractor(config.synth.scoring)
    if config.preset == "paper" and config.pool is None and config.synth.autoencoder.pretrained is None:
        raise UserError(
            "preset paper needs a pretrained autoencoder of factor 8 and none is given: name a folder or hub name "
            "of a diffusers AutoencoderKL with --synth.autoencoder.pretrained"
        )


def _check_backbone(config: ClassifierConfig) -> None:
    """Build the classifier without memory or weights; only a pretrained one of another width fails as such."""
    impossible = config.pretrained and config.width is not None
    with torch.device("meta"):
        build_classifier(
            config.model_copy(update={"pretrained": impossible}), channels=3, num_classes=2, size_px=224
        )
