"""`npz:PATH`: arrays in MedMNIST's format, `train_images`, `train_labels`, `val_…`, `test_…`."""

from __future__ import annotations

import contextlib
import functools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlcas.data.checks import integer_labels
from rlcas.data.groups import own_groups
from rlcas.data.source import RawSplit, Source, SplitName
from rlcas.errors import UserError
from rlcas.storage.reading import NOT_ARRAYS, open_npz_file, read_member, reason_of
from rlcas.types import Int64

NPZ_SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


def open_npz(path: Path, class_names: tuple[str, ...] | None = None) -> Source:
    """Return the splits in an npz file; images are read on demand.

    Images are [N, H, W], [N, H, W, 1] or [N, H, W, 3] of an integer dtype; labels [N] or [N, 1] integers.
    Optional: `train_patients` and so on [N] (text or integers) and `class_names` [C] (text).

    Raises:
        UserError: the file is missing, truncated, altered, in another format, or holds a pickle.
    """
    keys = npz_keys(path)
    splits = {
        split: _open_split(path, split, keys)
        for split in NPZ_SPLITS
        if f"{split}_images" in keys or f"{split}_labels" in keys
    }
    if not splits:
        raise UserError(
            f"{path} has none of train_images, val_images, test_images: save it in MedMNIST's format "
            f"(it has {', '.join(sorted(keys)) or 'no array'})"
        )
    if "class_names" in keys:
        class_names = _class_names(path)
    return Source(name=path.stem, where=str(path), splits=splits, class_names=class_names)


def npz_keys(path: Path) -> set[str]:
    """Return the names of a file's arrays.

    Raises:
        UserError: the file is missing or not an npz file.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file: check the path after npz:")
    # np.load takes every other file for .npy or a pickle.
    if not _is_zip(path):
        raise UserError(
            f"{path} is not an npz file, or is truncated: download it again, or write it with numpy.savez"
        )
    with _reading(str(path)), open_npz_file(path) as arrays:
        return set(arrays.files)


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    # Its own answer to an end record that speaks of several disks.
    except zipfile.BadZipFile:
        return False


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn the errors of zipfile and NumPy for a damaged file into a UserError."""
    try:
        yield
    # Before NOT_ARRAYS, which has ValueError, the base of UserError.
    except UserError:
        raise
    except NOT_ARRAYS as error:
        # NumPy has no error class of its own for object arrays, only this text.
        if "allow_pickle" in str(error):
            fault = "is a pickle (an object array), which is never loaded: save plain arrays"
        else:
            fault = f"is truncated or altered ({reason_of(error)}): download or write the file again"
        raise UserError(f"{what} {fault}") from error


def _array(path: Path, key: str) -> NDArray[Any]:
    with _reading(f"{path}: {key}"), open_npz_file(path) as arrays:
        array = read_member(arrays, key, path)
    # NumPy returns members that are no .npy as bytes.
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path}: {key} is not a NumPy array: save plain arrays with numpy.savez")
    return array


def _open_split(path: Path, split: SplitName, keys: set[str]) -> RawSplit:
    for key in (f"{split}_images", f"{split}_labels"):
        if key not in keys:
            raise UserError(f"{path} lacks {key}: save images and labels of a split together")
    labels_N = integer_labels(_array(path, f"{split}_labels"), f"{path}: {split}_labels")
    return RawSplit(
        labels_N=labels_N,
        names=[f"{split} {i}" for i in range(len(labels_N))],
        # Cached: the survey and the conversion both go through the images.
        open_images=functools.cache(lambda: _images(path, split, len(labels_N))),
        patients_N=_patients(path, split, len(labels_N)) if f"{split}_patients" in keys else None,
    )


def _images(path: Path, split: SplitName, num_labels: int) -> NDArray[Any]:
    images = npz_images(path, f"{split}_images")
    if len(images) != num_labels:
        raise UserError(
            f"{path}: {split}_images has {len(images)} images, but {split}_labels has {num_labels}: make them equal"
        )
    return images


def npz_images(path: Path, key: str) -> NDArray[Any]:
    """Return an array of images, [N, H, W] or [N, H, W, 3] of an integer dtype.

    Raises:
        UserError: the array is truncated, altered, a pickle, or of another shape or dtype.
    """
    images = _array(path, key)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim != 3 and not (images.ndim == 4 and images.shape[3] == 3):
        raise UserError(f"{path}: {key} has shape {images.shape}: save [N, H, W] or [N, H, W, 3]")
    if np.issubdtype(images.dtype, np.floating):
        nan = " with NaN" if np.isnan(images).any() else ""
        raise UserError(
            f"{path}: {key} is {images.dtype}{nan}: images must be uint8 or wider integers, because the values of "
            "black and white are not known of floats; scale them and save (255 * x).round().astype('uint8')"
        )
    if not np.issubdtype(images.dtype, np.integer):
        raise UserError(f"{path}: {key} is {images.dtype}: save images as uint8 or wider integers")
    return images


def _patients(path: Path, split: SplitName, num_labels: int) -> NDArray[np.str_]:
    patients_N = _array(path, f"{split}_patients").reshape(-1)
    if len(patients_N) != num_labels:
        raise UserError(
            f"{path}: {split}_patients has {len(patients_N)} ids, but {split}_labels has {num_labels}: "
            "make them equal"
        )
    if patients_N.dtype.kind not in "iuU":
        raise UserError(f"{path}: {split}_patients is {patients_N.dtype}: save ids as text or integers")
    return own_groups(
        [str(patient).strip() for patient in patients_N], [f"{split} {i}" for i in range(num_labels)]
    )


def _class_names(path: Path) -> tuple[str, ...]:
    names = _array(path, "class_names")
    if names.ndim != 1 or names.dtype.kind != "U":
        raise UserError(f"{path}: class_names is {names.dtype} {names.shape}: save one text for each class")
    return tuple(str(name) for name in names)


def numbered(labels_N: Int64) -> tuple[str, ...]:
    """Return `0`, `1`, … up to the highest label as the class names of a source without names."""
    return tuple(str(i) for i in range(int(labels_N.max()) + 1))
