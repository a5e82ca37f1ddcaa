"""Features of images that a network was not trained on: every training image is held out once.

A network's own training images look easy to it, and validation has few of a rare class. Folds give every training
image an opinion of a network that has not seen it, and so seven times the rare images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlcas.batches.sources import RealImages
from rlcas.classifiers import snapshot
from rlcas.classifiers.inference import features_of, predict_logits
from rlcas.config import RunConfig
from rlcas.data.split import cut_indices
from rlcas.devices import as_tensor
from rlcas.seeding import rng_for
from rlcas.training.fit import fit
from rlcas.training.trainer import ClassifierTrainer
from rlcas.types import ImageSet, Int64, SyntheticSource, TrainingData

NUM_FOLDS = 3
"""Parts of the training images, each of which is held out once."""
PoolOf = Callable[[Int64], SyntheticSource]
"""From the indices of a fold's training images to the synthetic images that may be shown beside them.

None of these may be made of an image that is held out: repeated real images, and images from real images, must be of
the training images that are given."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Features of images."""

    features_ND: Tensor
    """float64, each feature of mean 0 and standard deviation 1 over the fold's training images."""
    labels_N: Tensor
    """int64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """What one fold's network sees in the images."""

    train: Labelled
    held_out: Labelled
    held_out_groups_N: NDArray[np.int64]
    """Patient of each image that is held out, numbered over all folds; of its own where there are no ids."""
    pool: Labelled
    others: Labelled | None = None
    """Of images that are neither trained on nor in the pool, to measure by."""


@dataclass(frozen=True, slots=True)
class FoldNetwork:
    """A classifier that was trained without one fold."""

    kept_N: Int64
    """Indices of the training images that it was trained on."""
    held_out_N: Int64
    """Indices of those that it has not seen."""
    see: Callable[[ImageSet], Labelled]
    """From images to their features, not yet standardised."""


def fold_indices(train: ImageSet, num_folds: int, seed: int) -> list[tuple[Int64, Int64]]:
    """Return the indices of the training images and of those held out, of each fold.

    Patients stay together, and classes are spread evenly. A class that training would be left without is not held out.

    Args:
        train: the training images.
        num_folds: into how many parts they are cut.
        seed: of the cut.
    """
    parts = cut_indices(train.labels_N, train.patients_N, (1.0,) * num_folds, seed)
    folds = []
    for held_out in parts:
        kept = np.setdiff1d(np.arange(len(train)), held_out)
        lacking = ~np.isin(train.labels_N[held_out], train.labels_N[kept])
        folds.append((np.sort(np.concatenate([kept, held_out[lacking]])), held_out[~lacking]))
    return folds


def train_folds(
    data: TrainingData, config: RunConfig, *, epochs: int, num_folds: int = NUM_FOLDS, device: torch.device
) -> list[FoldNetwork]:
    """Train a plain classifier of real images without each fold.

    Args:
        data: training images; the validation images choose the epoch.
        config: the run's settings; method and number of epochs are replaced.
        epochs: how many each fold's classifier is trained for.
        num_folds: F, at least 2.
        device: where classifiers are.

    Raises:
        UserError: the classifier has no linear layer, or its loss is not finite.
    """
    sampler = config.sampler.model_copy(update={"epochs": epochs})
    classifier = config.classifier.model_copy(update={"method": "baseline"})
    config = config.model_copy(update={"sampler": sampler, "classifier": classifier})
    return [
        FoldNetwork(kept, held_out, _trained(data, kept, config, epochs, device))
        for kept, held_out in fold_indices(data.train, num_folds, config.seed)
    ]


def out_of_fold(
    networks: Sequence[FoldNetwork],
    train: ImageSet,
    pool_of: PoolOf,
    *,
    seed: int,
    images_a_class: int = 200,
    others: ImageSet | None = None,
) -> list[Fold]:
    """Return what each fold's network sees.

    Args:
        networks: of `train_folds`.
        train: all training images.
        pool_of: the synthetic images of a fold, of all its classes.
        seed: of the choice of images of the pool.
        images_a_class: the most images of a class of the pool that features are computed of.
        others: more images to compute features of.
    """
    groups_N = _groups(train)
    folds = []
    for number, network in enumerate(networks):
        pool, rng = pool_of(network.kept_N), rng_for(seed, "fold", number)
        shown = [np.sort(rng.permutation(size)[:images_a_class]) for size in pool.class_sizes_C.tolist()]
        pool_images = ImageSet(
            images_NCHW=np.concatenate([pool.images(c, own) for c, own in enumerate(shown)]),
            labels_N=np.repeat(np.arange(len(shown)), [len(own) for own in shown]),
        )
        sets = [train.take(network.kept_N), train.take(network.held_out_N), pool_images]
        seen = [network.see(images) for images in [*sets, *([others] if others else [])]]
        folds.append(_standardised(seen, groups_N[network.held_out_N]))
    return folds


def _groups(train: ImageSet) -> NDArray[np.int64]:
    if train.patients_N is None:
        return np.arange(len(train))
    return np.unique(train.patients_N, return_inverse=True)[1].astype(np.int64)


def _trained(
    data: TrainingData, kept_N: Int64, config: RunConfig, epochs: int, device: torch.device
) -> Callable[[ImageSet], Labelled]:
    """Train a classifier and return the function from images to their features in it."""
    train = data.train.take(kept_N)
    # With counts of zero no image of the pool is used, but the trainer requires one with images of every class.
    trainer = ClassifierTrainer(replace(data, train=train), config, pool=RealImages(train), device=device)
    best, _ = fit(trainer, np.zeros(data.num_classes, np.int64), epochs)
    trainer.model.load_state_dict(snapshot.to_state_dict(best.arrays, trainer.model))
    model, normalisation = trainer.model, trainer.batch_maker.normalisation

    def see(images: ImageSet) -> Labelled:
        stored = as_tensor(images.images_NCHW, torch.device("cpu"))  # moved to the device batch by batch
        with features_of(model, config.classifier.backbone) as captured:
            predict_logits(model, stored, normalisation, config.classifier, device)
        return Labelled(torch.cat(captured).double(), torch.from_numpy(images.labels_N))

    return see


def _standardised(sets: list[Labelled], groups_N: NDArray[np.int64]) -> Fold:
    train_ND = sets[0].features_ND
    # A feature that never varies stays as it is.
    deviation_D = train_ND.std(dim=0)
    deviation_D = deviation_D.where(deviation_D > 0, 1.0)
    train, held_out, pool, *others = (
        Labelled((own.features_ND - train_ND.mean(dim=0)) / deviation_D, own.labels_N) for own in sets
    )
    return Fold(
        train=train,
        held_out=held_out,
        held_out_groups_N=groups_N,
        pool=pool,
        others=others[0] if others else None,
    )
