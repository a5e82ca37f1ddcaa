"""Images by name or path: `load` for training, `load_test` for evaluation alone, after `require_test`.

read (named set, npz, folder, csv) → split → survey → window, gray or RGB, resize → thin
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from rlcas.config import RunConfig
from rlcas.data.checks import check_classes, check_labels, check_no_empty_class, check_not_empty
from rlcas.data.duplicates import identical_pictures, shared_patients
from rlcas.data.folder import open_folder
from rlcas.data.longtail import long_tail_counts, thinned
from rlcas.data.medmnist import medmnist_names, open_medmnist
from rlcas.data.npz import numbered, open_npz
from rlcas.data.phantom import open_phantoms
from rlcas.data.pixels import Layout, Survey, convert, layout_of, survey
from rlcas.data.prepared import open_prepared, prepare
from rlcas.data.source import RawSplit, Source, SplitName
from rlcas.data.split import Splits, divided
from rlcas.data.table import open_csv
from rlcas.errors import UserError
from rlcas.registry import lookup
from rlcas.seeding import rng_for
from rlcas.storage import remote
from rlcas.types import ImageSet, TrainingData

__all__ = ["DATASETS", "PREFIXES", "load", "load_test", "open_prepared", "prepare", "require_test"]

Reader = Callable[[RunConfig, bool], Source]
"""(settings, whether to show progress) -> source."""


def _medmnist_reader(flag: str, size_px: int) -> Reader:
    return lambda config, progress: open_medmnist(flag, size_px, progress=progress)


DATASETS: dict[str, Reader] = {
    "phantom": lambda config, progress: open_phantoms(
        config.dataset.phantom, config.dataset.split, _seed(config)
    ),
    **{name: _medmnist_reader(flag, size_px) for name, (flag, size_px) in medmnist_names().items()},
}
"""Data sets by name; more come from outside as package.module:object."""

PREFIXES: dict[str, Callable[[Path, RunConfig], Source]] = {
    "npz": lambda path, config: open_npz(path),
    "folder": lambda path, config: open_folder(path, config.dataset.window),
    "csv": lambda path, config: open_csv(path, config.dataset.window),
}
"""What `npz:PATH` and so on mean."""


def load(config: RunConfig, *, progress: bool = False) -> TrainingData:
    """Return the training and validation images that `config.data` and `config.dataset` describe.

    Test images are only hashed, so that pictures which are in train or val too can be told of.

    Raises:
        UserError: whatever a user can mend: the file, its content, or a setting; one line.
    """
    source = _open(config, progress)
    splits, split_notes = divided(source, config.dataset, _seed(config), wanted=("train", "val"))
    check_not_empty(source.where, splits)
    class_names = source.class_names or numbered(splits["train"].labels_N)
    check_classes(source.where, class_names)
    check_labels(source.where, splits, class_names)
    check_no_empty_class(source.where, splits["train"], class_names)
    surveys = {name: survey(split) for name, split in splits.items()}
    layout, layout_notes = layout_of(source.where, surveys, surveys["train"], config.dataset)
    train, thin_notes = _thin(splits["train"], class_names, config)
    findings = identical_pictures(splits, surveys) + shared_patients(splits)
    return TrainingData(
        name=source.name,
        class_names=class_names,
        train=_image_set(train, layout),
        val=_image_set(splits["val"], layout),
        notes=source.notes + split_notes + layout_notes + findings + thin_notes,
        window=layout.window,
    )


def load_test(
    config: RunConfig, num_classes: int | None = None, *, progress: bool = False
) -> tuple[ImageSet, tuple[str, ...]]:
    """Return the test images and the class names; needs no other split, unless test is cut from it.

    `num_classes` says how many classes there are where the source neither names them nor has training labels.

    Raises:
        UserError: as `load`.
    """
    source, splits = _open_with_test(config, progress)
    class_names = source.class_names or _numbered_classes(splits, num_classes)
    check_labels(source.where, {"test": splits["test"]}, class_names)
    surveys: dict[SplitName, Survey] = {"test": survey(splits["test"])}
    if surveys["test"].num_wide and config.dataset.window is None and "train" in splits:
        surveys["train"] = survey(splits["train"])
    layout, _ = layout_of(source.where, surveys, surveys.get("train"), config.dataset)
    return _image_set(splits["test"], layout), class_names


def require_test(config: RunConfig) -> None:
    """Check that there will be test images for `load_test`; labels are read, but no image.

    Raises:
        UserError: there are none; the line names the setting that would cut them from train.
    """
    _open_with_test(config, progress=False)


def _open_with_test(config: RunConfig, progress: bool) -> tuple[Source, Splits]:
    source = _open(config, progress)
    splits, _ = divided(source, config.dataset, _seed(config), wanted=("test",))
    check_not_empty(source.where, {"test": splits["test"]})
    return source, splits


def _open(config: RunConfig, progress: bool) -> Source:
    prefix, _, path = config.data.partition(":")
    if prefix in PREFIXES:
        return PREFIXES[prefix](_local(prefix, path, config), config)
    check_name(config.data)
    return lookup(config.data, DATASETS, "data")(config, progress)


def check_name(name: str) -> None:
    """Check that `data` has a known name; neither files are looked for, nor is package.module:object imported.

    Raises:
        UserError: it has not.
    """
    if name not in DATASETS and ":" not in name:
        raise UserError(
            f"data {name!r} is unknown: use {', '.join(f'{prefix}:PATH' for prefix in PREFIXES)}, "
            f"or one of {', '.join(sorted(DATASETS))}"
        )


def _local(prefix: str, path: str, config: RunConfig) -> Path:
    """Return the path of what --data names; a table's address brings the folder that it lies in, images and all."""
    if prefix == "csv" and remote.address_of(path):
        parent, _, name = path.rpartition("/")
        return remote.fetched(parent, config.cluster.cache) / name
    return remote.fetched(path, config.cluster.cache)


def _numbered_classes(splits: Splits, num_classes: int | None) -> tuple[str, ...]:
    if num_classes is not None:
        return tuple(str(i) for i in range(num_classes))
    return numbered(splits["train" if "train" in splits else "test"].labels_N)


def _image_set(split: RawSplit, layout: Layout) -> ImageSet:
    images_NCHW = convert(split.open_images(), layout)
    return ImageSet(images_NCHW=images_NCHW, labels_N=split.labels_N, patients_N=split.patients_N)


def _seed(config: RunConfig) -> int:
    """Return the seed of all that is drawn of the data."""
    return config.seed if config.dataset.seed is None else config.dataset.seed


def _thin(train: RawSplit, class_names: tuple[str, ...], config: RunConfig) -> tuple[RawSplit, tuple[str, ...]]:
    factor = config.dataset.imbalance_factor
    if factor is None:
        return train, ()
    kept_C = long_tail_counts(np.bincount(train.labels_N, minlength=len(class_names)), factor)
    left = ", ".join(f"{name} {count}" for name, count in zip(class_names, kept_C, strict=True))
    note = f"train is thinned to a long tail of imbalance factor {factor:g}: {left}"
    return train.take(thinned(train.labels_N, kept_C, rng_for(_seed(config), "thin"))), (note,)
