"""The images of a run: which they are, decided once; prepared for training; the test images, read at the end."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from rlcas import data as datasets
from rlcas.config import RunConfig
from rlcas.data.prepared import DATA_FILE, read_data_facts
from rlcas.errors import UserError
from rlcas.runs.folder import RunFolder
from rlcas.types import ImageSet, SplitRecord, TrainingData


def keep_images(data: TrainingData, folder: RunFolder) -> None:
    """Write the record of the split, then train and val as mapped arrays, into a run's folder."""
    assert data.record is not None, "prepared images are in a run's folder already"
    datasets.write_record(data.record, folder.split)
    datasets.prepare(data, folder.prepared)


def prepare_again(folder: RunFolder, config: RunConfig) -> tuple[str, ...]:
    """Prepare the images of a run unless that is done; return notes on how their source has changed.

    Raises:
        UserError: the source cannot be read, or the run's images are missing or altered.
    """
    is_prepared, has_record = (folder.prepared / DATA_FILE).exists(), folder.split.exists()
    if is_prepared and not has_record:
        datasets.write_record(_record_of_old_run(folder, config), folder.split)
    if is_prepared:
        return ()
    record = datasets.read_record(folder.split) if has_record else None
    data = datasets.load(config, record=record, progress=True)
    keep_images(data, folder)
    return data.notes


def share_images(shared: RunFolder, own: RunFolder) -> None:
    """Link the prepared images and the record of the split of one run's folder into another's."""
    link_once(shared.prepared, own.prepared)
    # Comparisons and sweeps begun before 0.2 have none.
    if shared.split.exists():
        link_once(shared.split, own.split)


def link_once(target: Path, link: Path) -> None:
    """Make a link unless there is one; relative, so that the folder that holds both may be moved."""
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(target, link.parent))


def record_of(folder: RunFolder, config: RunConfig) -> SplitRecord:
    """Return which images each split of a run holds.

    Args:
        folder: the run's folder.
        config: the run's own settings, with which a run that has no record yet cut its split.

    Raises:
        UserError: the run was begun before 0.2, which kept no record, and its source has changed since.
    """
    if folder.split.exists():
        return datasets.read_record(folder.split)
    return _record_of_old_run(folder, config)


def test_images(folder: RunFolder, config: RunConfig) -> tuple[ImageSet, tuple[str, ...]]:
    """Return the run's test images, and notes on how their source has changed since the run began.

    Raises:
        UserError: a test image is missing or altered, or as `record_of`.
    """
    return datasets.load_recorded_test(config, record_of(folder, config))


def _record_of_old_run(folder: RunFolder, config: RunConfig) -> SplitRecord:
    """Return the record of a run that was begun before 0.2, from a second cut that gave the same images."""
    data = datasets.load(config)
    assert data.record is not None
    if not _same_images(data, folder, config):
        raise UserError(
            f"{folder.path} has no {folder.split.name}, as runs begun before 0.2, and {config.data} is not known to be "
            "as it was when it began: restore the images, or begin a new run"
        )
    return data.record


def _same_images(data: TrainingData, folder: RunFolder, config: RunConfig) -> bool:
    """Return whether the data are those that were prepared; where the arrays were not copied, by the counts.

    Where nothing was prepared or copied, splits that come with the source are taken for those of the run.
    """
    if not (folder.prepared / DATA_FILE).exists():
        return not datasets.is_cut(config)
    facts = read_data_facts(folder.prepared)
    splits = {"train": data.train, "val": data.val}
    counts = {name: images.class_counts(data.num_classes).tolist() for name, images in splits.items()}
    if (list(data.class_names), counts) != (facts["class_names"], facts["class_counts"]):
        return False
    if not (folder.prepared / "train_images.npy").exists():
        return True
    prepared = datasets.open_prepared(folder.prepared)
    return all(
        np.array_equal(new.images_NCHW, old.images_NCHW) and np.array_equal(new.labels_N, old.labels_N)
        for new, old in ((data.train, prepared.train), (data.val, prepared.val))
    )
