"""Checks of the settings before anything is read, written or started."""

from __future__ import annotations

import numpy as np
import torch

from envs.observations import Observer
from rlcas.batches.composition import batch_starts, check_composition, check_divisible
from rlcas.classifiers.batch_norm import check_batch_norm
from rlcas.classifiers.build import UNFIT, build_classifier
from rlcas.classifiers.image_size import check_image_size
from rlcas.config import ClassifierConfig, RunConfig, SamplerConfig, SynthConfig
from rlcas.errors import UserError
from rlcas.evaluation.features import check_extractor
from rlcas.losses import LOSSES
from rlcas.methods import METHODS, check_training_step
from rlcas.methods.method import missing_weights
from rlcas.metrics import CLASS_SIGNALS, SELECTING
from rlcas.registry import lookup
from rlcas.rewards import reward_named
from rlcas.runs import replay
from rlcas.shots import shot_groups
from rlcas.types import TrainingData
from synth.generators import Generator, check_start, generator_of
from synth.ldm.diffusion import SOLVERS
from synth.pidinet import WHERE_TO_GET
from synth.sketch import SKETCHES, sketch_extractor
from synth.training.workers import Workers


def check_settings(config: RunConfig) -> None:
    """Look up every name that the run will need, and open the sketch extractor's weights.

    Raises:
        UserError: a name is unknown, or a file of weights is missing or wrong.
    """
    check_training(config)
    lookup(config.synth.sketch, SKETCHES, "synth.sketch")
    lookup(config.synth.generation.solver, SOLVERS, "synth.generation.solver")
    generator = generator_of(config)
    check_extractor(config.synth.scoring)
    if config.pool is None:
        _check_synthesis(config, generator)


def check_training(config: RunConfig) -> None:
    """Look up what phase two needs.

    Raises:
        UserError: a name is unknown, or the backbone cannot be built.
    """
    _check_method(config)
    check_training_step(config)
    lookup(config.classifier.loss, LOSSES, "classifier.loss")
    _check_sampler(config.sampler)
    _check_backbone(config.classifier)


def check_shares(config: RunConfig, generator: Generator) -> None:
    """Check that the workers which train the synthesiser can share its mini-batches evenly.

    Raises:
        UserError: a mini-batch cannot be divided so.
    """
    workers = Workers(size=config.cluster.synth_workers)
    for group in generator.parts.values():
        workers.check_divides(getattr(config.synth, group).batch_size, f"synth.{group}.batch_size")


def check_data_fits(config: RunConfig, data: TrainingData) -> tuple[str, ...]:
    """Check that the settings of phase two fit the data; return notes for the user.

    Raises:
        UserError: counts, a replayed run or a list of classes are for other data; the metric cannot be had from the
            validation images; or the classifier cannot take the images, does not read all of them, or has no BatchNorm
            for `sampler.batch_norm`.
    """
    check_composition(config, data.num_classes)
    check_divisible(config.sampler, len(batch_starts(len(data.train), config.classifier.batch_size)))
    replay.schedule(config.sampler, data.num_classes)
    shot_groups(config.shots, data.train.class_counts(data.num_classes), None)
    check_metric("sampler.metric", config.sampler.metric, data)
    notes = check_image_size(config.classifier, data.image_shape_CHW, data.num_classes)
    check_batch_norm(config, data.image_shape_CHW, data.num_classes)
    return notes


def check_metric(setting: str, name: str, data: TrainingData) -> None:
    """Check that the validation images have the metric of a setting, which for an AUC needs two classes.

    Raises:
        UserError: it is not a number, whatever is predicted.
    """
    classes, labels_N = data.num_classes, data.val.labels_N
    even_NC = np.full((len(labels_N), classes), 1 / classes)
    having = [known for known, metric in SELECTING.items() if np.isfinite(metric(even_NC, labels_N))]
    if name not in having:
        seen = ", ".join(repr(data.class_names[c]) for c in np.unique(labels_N))
        raise UserError(
            f"{setting} {name!r} is not defined on the {len(labels_N)} validation images, which are all of class "
            f"{seen}: set {setting} to {' or '.join(having)}, or add validation images of the other classes"
        )


def _check_method(config: RunConfig) -> None:
    """Look up the training step. A row with a pool needs its weights for the pool, not for the classifier."""
    method = lookup(config.classifier.method, METHODS, "classifier.method")
    if method.pool is None and (missing := missing_weights(method, config)):
        raise UserError(f"classifier.method {config.classifier.method!r}: {missing}")


def _check_sampler(config: SamplerConfig) -> None:
    for setting, name, known in (
        ("metric", config.metric, SELECTING),
        ("signal", config.signal, CLASS_SIGNALS),
    ):
        if name not in known:
            raise UserError(f"sampler.{setting} {name!r} is unknown: use one of {', '.join(sorted(known))}")
    # For the errors that they raise.
    reward_named(config.reward)
    Observer(config)


def _check_synthesis(config: RunConfig, generator: Generator) -> None:
    if config.preset == "paper" and "autoencoder" in generator.parts:
        _check_paper_weights(config.synth)
    check_start(config)
    generator.check(config)
    if not callable(sketch_extractor(config.synth)):
        raise UserError(f"synth.sketch {config.synth.sketch!r} gives no extractor: name a factory of one")
    check_shares(config, generator)


def _check_paper_weights(config: SynthConfig) -> None:
    """Raise one error that names every missing file of weights."""
    missing = []
    if config.autoencoder.pretrained is None:
        missing.append(
            "a pretrained autoencoder of factor 8 (--synth.autoencoder.pretrained, a folder or hub name of a "
            "diffusers AutoencoderKL)"
        )
    if config.sketch == "pidinet" and config.sketch_weights is None:
        missing.append(f"the checkpoint of the pidinet sketches (--synth.sketch_weights, {WHERE_TO_GET})")
    if missing:
        raise UserError(f"preset paper needs weights that are not given: {', and '.join(missing)}")


def _check_backbone(config: ClassifierConfig) -> None:
    """Build the classifier without memory or weights; with weights only where these make the settings impossible."""
    impossible = config.pretrained and config.width is not None
    with torch.device("meta"):
        try:
            # Any shape will do: this looks for unknown names and for settings that do not go together.
            build_classifier(
                config.model_copy(update={"pretrained": impossible}), channels=3, num_classes=2, size_px=224
            )
        # Before UNFIT, which has ValueError, the base of UserError.
        except UserError:
            raise
        except UNFIT:
            # Of this size alone, perhaps: `check_image_size` tries that of the images.
            return
