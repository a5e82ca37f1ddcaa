"""Loading of images: train and val for training; test for evaluation alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rlcas.config import RunConfig
from rlcas.data.checks import (
    check_classes,
    check_labels,
    check_no_empty_class,
    check_not_empty,
    classes_without_images,
)
from rlcas.data.duplicates import identical_pictures, shared_patients
from rlcas.data.longtail import long_tail_counts, thinned
from rlcas.data.npz import numbered
from rlcas.data.opening import open_source, seed_of
from rlcas.data.pixels import Layout, convert, layout_of
from rlcas.data.record import part_record, recorded_splits
from rlcas.data.source import RawSplit, Source, SplitName
from rlcas.data.split import Splits, divided, shares_to_cut
from rlcas.data.survey import picture_digest, with_survey
from rlcas.seeding import rng_for
from rlcas.types import ImageSet, SplitRecord, TrainingData

TRAINED: tuple[SplitName, ...] = ("train", "val")


def load(config: RunConfig, *, record: SplitRecord | None = None, progress: bool = False) -> TrainingData:
    """Return the training and validation images that `config.data` and `config.dataset` describe.

    Test images are only hashed, to find pictures that are in train or val too, and to record which they are.

    Args:
        config: the settings of the data.
        record: of an earlier `load`: the same images are returned. None: the split is decided now.
        progress: whether to show the progress of a download.

    Raises:
        UserError: anything that the user can fix: the file, its content, or a setting.
    """
    source = open_source(config, progress=progress)
    if record is not None:
        return _load_recorded(config, source, record)
    # Before the images are read, which takes long.
    shares_to_cut(source, config.dataset, wanted=TRAINED)
    class_names = _checked_classes(source)
    source = replace(source, splits={name: with_survey(split) for name, split in source.splits.items()})
    splits, split_notes = divided(source, config.dataset, seed_of(config), wanted=TRAINED)
    check_not_empty(source.where, splits)
    check_no_empty_class(source.where, splits["train"], class_names)
    # The range of wide values is that of train alone: a range that saw test images would leak them.
    layout, layout_notes = layout_of(source.where, splits, splits["train"].surveyed, config.dataset)
    findings = identical_pictures(splits) + shared_patients(splits)
    findings += classes_without_images(splits["val"], class_names)
    splits["train"], unused, thin_notes = _thin(splits["train"], class_names, config)
    recorded: dict[str, RawSplit] = {str(name): split for name, split in splits.items()}
    if unused is not None:
        recorded["unused"] = unused
    return TrainingData(
        name=source.name,
        class_names=class_names,
        train=_image_set(splits["train"], layout),
        val=_image_set(splits["val"], layout),
        notes=source.notes + split_notes + layout_notes + findings + thin_notes,
        window=layout.window,
        record=SplitRecord(
            class_names=class_names,
            parts={name: part_record(split) for name, split in recorded.items()},
            window=layout.window,
        ),
    )


def _checked_classes(source: Source) -> tuple[str, ...]:
    """Return the names of the classes, after checks of the labels of all splits."""
    # First: the checks after it take the largest label.
    check_not_empty(source.where, source.splits)
    largest = source.splits["all" if "all" in source.splits else "train"]
    class_names = source.class_names or numbered(largest.labels_N)
    check_classes(source.where, class_names)
    check_labels(source.where, source.splits, class_names)
    return class_names


def _load_recorded(config: RunConfig, source: Source, record: SplitRecord) -> TrainingData:
    splits, notes = recorded_splits(source, record, TRAINED)
    layout, layout_notes = layout_of(
        source.where, splits, splits["train"].surveyed, config.dataset, trained_window=record.window
    )
    return TrainingData(
        name=source.name,
        class_names=record.class_names,
        train=_image_set(splits["train"], layout),
        val=_image_set(splits["val"], layout),
        notes=source.notes + notes + layout_notes,
        window=layout.window,
        record=record,
    )


def load_recorded_test(config: RunConfig, record: SplitRecord) -> tuple[ImageSet, tuple[str, ...]]:
    """Return the test images of a run, which its record lists, and notes on how their source has changed.

    Raises:
        UserError: the source cannot be read, or a test image is missing or altered.
    """
    source = open_source(config)
    splits, notes = recorded_splits(source, record, ("test",))
    layout, _ = layout_of(source.where, splits, None, config.dataset, trained_window=record.window)
    return _image_set(splits["test"], layout), notes


def test_digests(config: RunConfig, record: SplitRecord) -> set[bytes]:
    """Return the hash of each test image of a run as `picture_digest` makes it of converted images [channels, H, W].

    For comparison with images that must not be test images; the images themselves are not returned.

    Raises:
        UserError: as `load_recorded_test`.
    """
    test, _ = load_recorded_test(config, record)
    return {picture_digest(image_CHW) for image_CHW in test.images_NCHW}


def load_test(
    config: RunConfig, num_classes: int | None = None, *, progress: bool = False
) -> tuple[ImageSet, tuple[str, ...]]:
    """Return the test images and the class names; no other split is needed, unless test is cut from it.

    A run's own test images are read by `load_recorded_test`.

    Args:
        config: the settings of the data.
        num_classes: number of classes, for a source that neither names them nor has training labels.
        progress: whether to show the progress of a download.

    Raises:
        UserError: anything that the user can fix: the file, its content, or a setting.
    """
    source, splits = _open_with_test(config, progress)
    class_names = source.class_names or _numbered_classes(splits, num_classes)
    test = splits["test"]
    check_labels(source.where, {"test": test}, class_names)
    test = with_survey(test)
    # Reading all training images is slow; only their range may be needed.
    needs_range = test.surveyed.num_wide and config.dataset.window is None and "train" in splits
    train = with_survey(splits["train"]).surveyed if needs_range else None
    layout, _ = layout_of(source.where, {"test": test}, train, config.dataset)
    return _image_set(test, layout), class_names


def require_test(config: RunConfig) -> None:
    """Check that there will be test images; labels are read, but no images.

    Raises:
        UserError: there are none; the message names the setting that cuts them from train.
    """
    source = open_source(config)
    splits, _ = divided(source, config.dataset, seed_of(config), wanted=("test",))
    check_not_empty(source.where, {"test": splits["test"]})


def is_cut(config: RunConfig) -> bool:
    """Return whether splits are cut by the settings, and do not all come with the source."""
    return bool(shares_to_cut(open_source(config), config.dataset, wanted=()))


def _open_with_test(config: RunConfig, progress: bool) -> tuple[Source, Splits]:
    source = open_source(config, progress=progress)
    shares = shares_to_cut(source, config.dataset, wanted=("test",))
    if "test" in shares:
        # Identical pictures stay in one split, so that what is cut must be read.
        whole: SplitName = "all" if "all" in source.splits else "train"
        source = replace(source, splits={**source.splits, whole: with_survey(source.splits[whole])})
    splits, _ = divided(source, config.dataset, seed_of(config), wanted=("test",))
    check_not_empty(source.where, {"test": splits["test"]})
    return source, splits


def _numbered_classes(splits: Splits, num_classes: int | None) -> tuple[str, ...]:
    if num_classes is not None:
        return tuple(str(i) for i in range(num_classes))
    return numbered(splits["train" if "train" in splits else "test"].labels_N)


def _image_set(split: RawSplit, layout: Layout) -> ImageSet:
    images_NCHW = convert(split.open_images(), layout)
    return ImageSet(images_NCHW=images_NCHW, labels_N=split.labels_N, patients_N=split.patients_N)


def _thin(
    train: RawSplit, class_names: tuple[str, ...], config: RunConfig
) -> tuple[RawSplit, RawSplit | None, tuple[str, ...]]:
    """Return the images of train to use, subsampled to a long tail if the settings say so, and the others."""
    factor = config.dataset.imbalance_factor
    if factor is None:
        return train, None, ()
    kept_C = long_tail_counts(np.bincount(train.labels_N, minlength=len(class_names)), factor)
    counts = ", ".join(f"{name} {count}" for name, count in zip(class_names, kept_C, strict=True))
    note = f"train is subsampled to a long tail of imbalance factor {factor:g}: {counts}"
    kept_N = thinned(train.labels_N, kept_C, rng_for(seed_of(config), "thin"))
    unused_N = np.setdiff1d(np.arange(len(train)), kept_N)
    return train.take(kept_N), train.take(unused_N), (note,)
