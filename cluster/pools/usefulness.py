"""A pool judged by what it is for: small classifiers trained with it, and with as many repeated real images.

Both of a pair start from the same weights and see the real images in the same order and augmentation; they are measured
after their last epoch on the validation images, from which no generator learns.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlcas.batches.composition import batch_starts, replaces_real
from rlcas.batches.sources import RealImages
from rlcas.batches.static_mixture import constant_counts
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.comparison.usefulness import usefulness_figures
from rlcas.config import RunConfig
from rlcas.console import say
from rlcas.data import picture_digest
from rlcas.errors import UserError
from rlcas.runs.context import RunContext
from rlcas.runs.stages import stage
from rlcas.storage.atomic import replacing
from rlcas.storage.reading import RESTORE, read_arrays
from rlcas.training.fit import fit
from rlcas.training.saved_classifier import Classifier, predict
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import Float64, ImageSet, Int64, SyntheticSource, TrainingData

BACKBONE = "resnet18"
CHUNK_IMAGES = 256
"""Images of a source that are hashed at once."""


def usefulness_or_note(context: RunContext, pool: SyntheticSource) -> dict[str, Any] | None:
    """Return the usefulness of a pool if the settings ask for it; where it cannot be measured print why."""
    if not context.config.synth.scoring.usefulness:
        return None
    try:
        return usefulness(context, pool)
    except UserError as error:
        # The pool's other figures, and the rows of a comparison, do not need it.
        say(f"note: the pool's usefulness is not measured: {error}")
        return None


def usefulness(context: RunContext, pool: SyntheticSource) -> dict[str, Any]:
    """Return how much more classifiers learn with the pool than with as many repeated real images.

    The predictions are kept in the run's folder, so that an interrupted measurement continues.

    Returns:
        `rlcas.comparison.usefulness.usefulness_figures` of the held-out validation images, their number `n` and
        `class_counts`, and how it was measured: `seeds`, `epochs`, `counts` (images of each class that a mini-batch
        adds) and `classifier`.

    Raises:
        UserError: the validation images have no AUC, or a training diverges.
    """
    folder, scoring = context.folder, context.config.synth.scoring
    data = replace(context.data, val=held_out(context.data))
    counts_C = added_counts(context.config, data)
    seeds = range(context.config.seed, context.config.seed + scoring.usefulness_seeds)
    arms = {folder.taught_by_pool: pool, folder.taught_by_repeats: RealImages(data.train)}
    with stage(folder, f"Training {2 * len(seeds)} small classifiers to judge the pool", "usefulness"):
        of_pool, of_repeats = (
            {seed: _predictions(path / f"{seed}.npz", context, data, source, counts_C, seed) for seed in seeds}
            for path, source in arms.items()
        )
        figures = usefulness_figures(of_pool, of_repeats, data.val.labels_N)
    return {
        **figures,
        "n": len(data.val),
        "class_counts": data.val.class_counts(data.num_classes).tolist(),
        "seeds": len(seeds),
        "epochs": scoring.usefulness_epochs,
        "counts": counts_C.tolist(),
        "classifier": f"{BACKBONE} of width {scoring.usefulness_width}",
    }


def held_out(data: TrainingData) -> ImageSet:
    """Return the validation images that equal no training image, mirrored or not.

    Raises:
        UserError: they are of fewer than two classes, so that no area under a curve is defined.
    """
    train = data.train.images_NCHW
    known = {picture_digest(image) for images in (train, train[..., ::-1]) for image in images}
    kept = [i for i, image in enumerate(data.val.images_NCHW) if picture_digest(image) not in known]
    images = data.val.take(np.array(kept, np.int64))
    if (num_classes := len(np.unique(images.labels_N))) < 2:
        raise UserError(
            f"synth.scoring.usefulness needs validation images of two classes that are no training images, but "
            f"{data.name} has {len(images)} of {num_classes}: bring others, or cut some with --dataset.val_from_train"
        )
    return images


def added_counts(config: RunConfig, data: TrainingData) -> Int64:
    """Return [C] int64: the images of each class that a mini-batch adds, of the pool or of the repeats."""
    train_counts_C = data.train.class_counts(data.num_classes)
    return constant_counts(
        config, train_counts_C, np.ones(data.num_classes), config.synth.scoring.usefulness_ratio
    )


def small_config(config: RunConfig, seed: int) -> RunConfig:
    """Return the settings of a small classifier: those of the run, but for its network, method, epochs and seed."""
    scoring = config.synth.scoring
    network = {"backbone": BACKBONE, "width": scoring.usefulness_width, "pretrained": False}
    classifier = config.classifier.model_copy(update={**network, "method": "baseline"})
    sampler = config.sampler.model_copy(update={"epochs": scoring.usefulness_epochs})
    return config.model_copy(update={"seed": seed, "classifier": classifier, "sampler": sampler})


def images_trained(config: RunConfig, data: TrainingData) -> int:
    """Return the images that all small classifiers of one arm train on."""
    scoring, num_images = config.synth.scoring, len(data.train)
    if not replaces_real(config, data.num_classes):
        num_steps = len(batch_starts(num_images, config.classifier.batch_size))
        num_images += num_steps * int(added_counts(config, data).sum())
    return scoring.usefulness_seeds * scoring.usefulness_epochs * num_images


def _predictions(
    path: Path, context: RunContext, data: TrainingData, source: SyntheticSource, counts_C: Int64, seed: int
) -> Float64:
    """Return the [N, C] probabilities of a small classifier for the validation images; it is trained once.

    Args:
        path: where they are kept.
        context: the run.
        data: the training images, and the validation images to predict.
        source: where the added images come from.
        counts_C: [C] images of each class that a mini-batch adds.
        seed: of weights, order and augmentation.
    """
    config = small_config(context.config, seed)
    made_by = _fingerprint(config, source, counts_C, context.device)
    if path.exists() and str((stored := read_arrays(path, RESTORE)).get("made_by")) == made_by:
        return stored["probabilities"]
    trainer = ClassifierTrainer(data, config, pool=source, device=context.device)
    # The last epoch, not the best on the validation images, which are what it is measured on.
    fit(trainer, counts_C, config.sampler.epochs)
    classifier = Classifier(trainer.model, ClassifierMeta.of(data, config), context.device)
    probabilities_NC = predict(classifier, data.val.images_NCHW)
    path.parent.mkdir(parents=True, exist_ok=True)
    # An open file, as NumPy would add .npz to the temporary name; without pickle, as `read_arrays` loads none.
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, probabilities=probabilities_NC, made_by=np.array(made_by))
    return probabilities_NC


def _fingerprint(config: RunConfig, source: SyntheticSource, counts_C: Int64, device: torch.device) -> str:
    """Return a hash of all that decides a small classifier, but for the real images, which are the folder's."""
    digest = hashlib.blake2b(digest_size=16)
    trained_by = config.model_dump_json(include={"seed", "classifier", "sampler"})
    # The number of threads is part of the bits.
    digest.update(f"{trained_by} {counts_C.tolist()} {device} {torch.get_num_threads()}".encode())
    for class_id, size in enumerate(source.class_sizes_C.tolist()):
        for start in range(0, size, CHUNK_IMAGES):
            indices = np.arange(start, min(start + CHUNK_IMAGES, size))
            digest.update(np.ascontiguousarray(source.images(class_id, indices)).data)
        digest.update(f"class {class_id}: {size}".encode())
    return digest.hexdigest()
