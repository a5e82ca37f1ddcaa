"""The judge of pools: a Baseline trained on the real images, and its features."""

from __future__ import annotations

import functools

from rlcas.evaluation.features import FeatureExtractor, build_extractor
from rlcas.runs.context import RunContext
from rlcas.runs.stages import stage
from rlcas.training.baseline import train_baseline
from rlcas.training.saved_classifier import MODEL_FILE, Classifier, load_classifier


def pool_extractor(context: RunContext) -> FeatureExtractor:
    """Return the extractor of the settings; the classifier that it may need is trained here, once.

    Raises:
        UserError: its weights are not available.
    """
    judge = functools.partial(real_classifier, context)
    return build_extractor(context.config.synth.scoring, judge, context.device)


def real_classifier(context: RunContext) -> Classifier:
    """Return the Baseline of the run's settings, trained on the real images alone; it is trained once."""
    folder, data, config = context.folder, context.data, context.config
    # In a comparison or sweep the folder is a link to one that all share: the first that comes trains it.
    if not (folder.judge / MODEL_FILE).exists():
        with stage(folder, "Training the judge on the real images", "judge"):
            train_baseline(folder.judge, data.train, data, config, config.sampler.epochs, context.device)
    return load_classifier(folder.judge, context.device)
