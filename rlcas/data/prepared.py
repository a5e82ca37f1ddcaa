"""Training data on disk, written once and memory-mapped by every process of a node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from rlcas.errors import UserError
from rlcas.storage.atomic import write_array, write_json
from rlcas.storage.reading import open_array, read_typed
from rlcas.types import ImageSet, TrainingData

DATA_FILE = "data.json"
PreparedSplit = Literal["train", "val"]
# Test images are never prepared: what trains cannot read them.
SPLITS: tuple[PreparedSplit, ...] = ("train", "val")
PREPARE_AGAIN = "prepare the data again"
Count = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1)]


class Counts(TypedDict):
    """[C] images of each class."""

    train: list[Count]
    val: list[Count]


class Ids(TypedDict):
    """Whether there are patient ids."""

    train: bool
    val: bool


class DataFacts(TypedDict):
    """The content of data.json."""

    name: str
    class_names: list[str]
    image_shape_CHW: tuple[Literal[1, 3], Side, Side]
    class_counts: Counts
    patients: Ids
    notes: list[str]
    window: tuple[float, float] | None


_FACTS = TypeAdapter(DataFacts)


def prepare(data: TrainingData, folder: Path) -> None:
    """Write train and val as `.npy` files and, last, `data.json`, which marks the folder as complete."""
    folder.mkdir(parents=True, exist_ok=True)
    # A preparation that is interrupted must not leave the old facts beside new arrays.
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
    """Return the data that `prepare` wrote, memory-mapped read-only.

    Raises:
        UserError: the folder is incomplete or altered.
    """
    facts = read_data_facts(folder)
    return TrainingData(
        name=facts["name"],
        class_names=tuple(facts["class_names"]),
        train=_image_set(folder, "train", facts),
        val=_image_set(folder, "val", facts),
        notes=tuple(facts["notes"]),
        window=facts["window"],
    )


def read_data_facts(folder: Path) -> DataFacts:
    """Return the content of data.json.

    Raises:
        UserError: it is missing or altered.
    """
    path = folder / DATA_FILE
    if not path.is_file():
        raise UserError(f"{folder} has no {DATA_FILE}: {PREPARE_AGAIN}")
    return read_typed(path, _FACTS, PREPARE_AGAIN)


def _image_set(folder: Path, split: PreparedSplit, facts: DataFacts) -> ImageSet:
    """Return a split's arrays, memory-mapped, after checking them against data.json."""
    images_NCHW, labels_N = (
        open_array(folder / f"{split}_{key}.npy", PREPARE_AGAIN) for key in ("images", "labels")
    )
    patients_N = (
        open_array(folder / f"{split}_patients.npy", PREPARE_AGAIN) if facts["patients"][split] else None
    )
    counts_C, num_classes = facts["class_counts"][split], len(facts["class_names"])
    shape_N = (sum(counts_C),)
    # In this order: negative labels would make bincount raise. The images' values are not read, only mapped.
    matches = (
        (images_NCHW.dtype, images_NCHW.shape) == (np.uint8, shape_N + facts["image_shape_CHW"])
        and labels_N.dtype.kind in "iu"
        and labels_N.shape == shape_N
        and (patients_N is None or (patients_N.dtype.kind, patients_N.shape) == ("U", shape_N))
        and bool(((labels_N >= 0) & (labels_N < num_classes)).all())
        and np.bincount(labels_N, minlength=num_classes).tolist() == counts_C
    )
    if not matches:
        raise UserError(f"{folder}: the {split} arrays do not match {DATA_FILE}: {PREPARE_AGAIN}")
    return ImageSet(images_NCHW=images_NCHW, labels_N=labels_N, patients_N=patients_N)


def _arrays(images: ImageSet) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"images": images.images_NCHW, "labels": images.labels_N}
    return arrays if images.patients_N is None else {**arrays, "patients": images.patients_N}
