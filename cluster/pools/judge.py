"""What pools are judged by: a Baseline of the real images, and its features."""

from __future__ import annotations

import functools

import torch

from rlcas.config import RunConfig
from rlcas.evaluation.features import FeatureExtractor, build_extractor
from rlcas.runs.folder import RunFolder
from rlcas.runs.stages import stage
from rlcas.training.baseline import train_baseline
from rlcas.training.saved_classifier import MODEL_FILE, Classifier, load_classifier
from rlcas.types import TrainingData


def pool_extractor(
    folder: RunFolder, config: RunConfig, data: TrainingData, device: torch.device
) -> FeatureExtractor:
    """Return the extractor of the settings; the classifier that it may need is trained here, once.

    Raises:
        UserError: its weights cannot be had.
    """
    return build_extractor(
        config.synth.scoring, functools.partial(real_classifier, folder, config, data, device), device
    )


def real_classifier(
    folder: RunFolder, config: RunConfig, data: TrainingData, device: torch.device
) -> Classifier:
    """Return the Baseline of the run's settings, trained on the real images alone; it is trained once."""
    if not (folder.judge / MODEL_FILE).exists():
        with stage(folder, "Training the judge on the real images", "judge"):
            train_baseline(folder.judge, data.train, data, config, config.sampler.epochs, device)
    return load_classifier(folder.judge, device)
