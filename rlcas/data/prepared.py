"""Training data on disk, written once and mapped by every process of a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlcas.errors import UserError
from rlcas.files import write_array, write_json
from rlcas.types import ImageSet, TrainingData

DATA_FILE = "data.json"
SPLITS = ("train", "val")


def prepare(data: TrainingData, folder: Path) -> None:
    """Write train and val as `.npy` files and, last, `data.json`, without which the folder does not count."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DATA_FILE).unlink(missing_ok=True)
    for split, images in zip(SPLITS, (data.train, data.val), strict=True):
        for key, array in _arrays(images).items():
            write_array(folder / f"{split}_{key}.npy", array)
    write_json(
        folder / DATA_FILE,
        {
            "name": data.name,
            "class_names": data.class_names,
            "image_shape_CHW": data.image_shape_CHW,
            "class_counts": {
                split: images.class_counts(data.num_classes)
                for split, images in zip(SPLITS, (data.train, data.val), strict=True)
            },
            "patients": {"train": data.train.patients_N is not None, "val": data.val.patients_N is not None},
            "notes": data.notes,
            "window": data.window,
        },
    )


def open_prepared(folder: Path) -> TrainingData:
    """Return what `prepare` wrote, memory-mapped read-only.

    Raises:
        UserError: the folder is not (wholly) prepared or was altered.
    """
    facts = _facts(folder)
    sets = {}
    for split in SPLITS:
        images_NCHW = _mapped(folder / f"{split}_images.npy")
        labels_N = _mapped(folder / f"{split}_labels.npy")
        patients_N = _mapped(folder / f"{split}_patients.npy") if facts["patients"][split] else None
        if not len(images_NCHW) == len(labels_N) == sum(facts["class_counts"][split]):
            raise UserError(f"{folder}: the {split} arrays do not fit {DATA_FILE}: prepare the data again")
        sets[split] = ImageSet(images_NCHW=images_NCHW, labels_N=labels_N, patients_N=patients_N)
    return TrainingData(
        name=facts["name"],
        class_names=tuple(facts["class_names"]),
        train=sets["train"],
        val=sets["val"],
        notes=tuple(facts["notes"]),
        window=tuple(window) if (window := facts.get("window")) else None,
    )


def _arrays(images: ImageSet) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"images": images.images_NCHW, "labels": images.labels_N}
    return arrays if images.patients_N is None else {**arrays, "patients": images.patients_N}


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / DATA_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no {DATA_FILE}: prepare the data again") from error
    except ValueError as error:
        raise UserError(f"{path} is truncated or altered ({error}): prepare the data again") from error


def _mapped(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is missing, truncated or altered ({error}): prepare the data again") from error
