"""Images by name or path: `load` for training, `load_test` for evaluation only, after `require_test`.

read (named set, npz, folder, csv) → split → survey → window, gray or RGB, resize → subsample to a long tail
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from rlcas.config import RunConfig
from rlcas.data.checks import check_classes, check_labels, check_no_empty_class, check_not_empty
from rlcas.data.classes import with_classes
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
from rlcas.data.unused import with_unused
from rlcas.errors import UserError
from rlcas.registry import lookup
from rlcas.seeding import rng_for
from rlcas.storage import remote
from rlcas.types import ImageSet, TrainingData

__all__ = ["DATASETS", "PREFIXES", "load", "load_test", "open_prepared", "prepare", "require_test"]

Reader = Callable[[RunConfig, bool], Source]
"""(settings, whether to show progress) -> the data set."""


# A function, because a lambda in the comprehension below would see the last flag and size only.
def _medmnist_reader(flag: str, size_px: int) -> Reader:
    return lambda config, progress: open_medmnist(flag, size_px, progress=progress)


DATASETS: dict[str, Reader] = {
    "phantom": lambda config, progress: open_phantoms(
        config.dataset.phantom, config.dataset.split, _seed(config)
    ),
    **{name: _medmnist_reader(flag, size_px) for name, (flag, size_px) in medmnist_names().items()},
}
"""Data sets by name; code from outside is named package.module:object."""

PREFIXES: dict[str, Callable[[Path, RunConfig], Source]] = {
    "npz": lambda path, config: open_npz(path),
    "folder": lambda path, config: open_folder(path, config.dataset),
    "csv": lambda path, config: open_csv(path, config.dataset),
}
"""Readers by prefix: `npz:PATH` and so on."""


def load(config: RunConfig, *, progress: bool = False) -> TrainingData:
    """Return the training and validation images that `config.data` and `config.dataset` describe.

    Test images are only hashed, to find pictures that are in train or val too.

    Raises:
        UserError: anything that the user can fix: the file, its content, or a setting.
    """
    source = _open(config, progress)
    splits, split_notes = divided(source, config.dataset, _seed(config), wanted=("train", "val"))
    # First: the checks after it take the largest label.
    check_not_empty(source.where, splits)
    class_names = source.class_names or numbered(splits["train"].labels_N)
    check_classes(source.where, class_names)
    check_labels(source.where, splits, class_names)
    check_no_empty_class(source.where, splits["train"], class_names)
    # Test images as well, for hashes and shapes alone: none of them is converted or returned here.
    surveys = {name: survey(split) for name, split in splits.items()}
    # The range of wide values is that of train alone: a range that saw test images would leak them.
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
    """Return the test images and the class names; no other split is needed, unless test is cut from it.

    Args:
        config: the settings of the data.
        num_classes: number of classes, for a source that neither names them nor has training labels.
        progress: whether to show the progress of a download.

    Raises:
        UserError: anything that the user can fix: the file, its content, or a setting.
    """
    source, splits = _open_with_test(config, progress)
    class_names = source.class_names or _numbered_classes(splits, num_classes)
    check_labels(source.where, {"test": splits["test"]}, class_names)
    surveys: dict[SplitName, Survey] = {"test": survey(splits["test"])}
    # Reading all training images is slow; only their range may be needed.
    if surveys["test"].num_wide and config.dataset.window is None and "train" in splits:
        surveys["train"] = survey(splits["train"])
    layout, _ = layout_of(source.where, surveys, surveys.get("train"), config.dataset)
    return _image_set(splits["test"], layout), class_names


def require_test(config: RunConfig) -> None:
    """Check that `load_test` will find test images; labels are read, but no images.

    Raises:
        UserError: there are none; the message names the setting that cuts them from train.
    """
    _open_with_test(config, progress=False)


def _open_with_test(config: RunConfig, progress: bool) -> tuple[Source, Splits]:
    source = _open(config, progress)
    splits, _ = divided(source, config.dataset, _seed(config), wanted=("test",))
    check_not_empty(source.where, {"test": splits["test"]})
    return source, splits


def _open(config: RunConfig, progress: bool) -> Source:
    prefix, _, path = config.data.partition(":")
    # `package.module:object` has a colon too, hence only known prefixes are split off.
    if prefix in PREFIXES:
        source = PREFIXES[prefix](_local(prefix, path, config), config)
    else:
        check_name(config.data)
        source = lookup(config.data, DATASETS, "data")(config, progress)
    return with_unused(with_classes(source, config.dataset), prefix, config.dataset)


def check_name(name: str) -> None:
    """Check that `name` is a known data set or has a prefix; no file is read, and package.module:object not imported.

    Raises:
        UserError: it is unknown.
    """
    if name not in DATASETS and ":" not in name:
        raise UserError(
            f"data {name!r} is unknown: use {', '.join(f'{prefix}:PATH' for prefix in PREFIXES)}, "
            f"or one of {', '.join(sorted(DATASETS))}"
        )


def _local(prefix: str, path: str, config: RunConfig) -> Path:
    """Return the local path of `path`; for the address of a table, its whole folder with the images is fetched."""
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
    """Return the seed of all random draws in the data."""
    return config.seed if config.dataset.seed is None else config.dataset.seed


def _thin(train: RawSplit, class_names: tuple[str, ...], config: RunConfig) -> tuple[RawSplit, tuple[str, ...]]:
    factor = config.dataset.imbalance_factor
    if factor is None:
        return train, ()
    kept_C = long_tail_counts(np.bincount(train.labels_N, minlength=len(class_names)), factor)
    counts = ", ".join(f"{name} {count}" for name, count in zip(class_names, kept_C, strict=True))
    note = f"train is subsampled to a long tail of imbalance factor {factor:g}: {counts}"
    return train.take(thinned(train.labels_N, kept_C, rng_for(_seed(config), "thin"))), (note,)
