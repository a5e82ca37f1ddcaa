"""Checks of labels and splits; each fault is an error of one line with its fix."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlcas.data.source import RawSplit, SplitName
from rlcas.errors import UserError
from rlcas.metrics import absence_note
from rlcas.types import Int64

UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, halves of a pair, and line and paragraph ends."""
MOST_NAMED = 5
"""Classes that one line names."""


def integer_labels(labels: NDArray[Any], what: str) -> Int64:
    """Return labels [N] or [N, 1] of any integer dtype as int64 [N].

    Raises:
        UserError: another shape or dtype, or a negative label; the message starts with `what`.
    """
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise UserError(
            f"{what} has shape {labels.shape}: multi-label data are not supported, save one label for each image"
        )
    if labels.ndim not in (1, 2):
        raise UserError(f"{what} has shape {labels.shape}: save one integer for each image, [N] or [N, 1]")
    if not np.issubdtype(labels.dtype, np.integer):
        nan = " with NaN" if np.issubdtype(labels.dtype, np.floating) and np.isnan(labels).any() else ""
        raise UserError(f"{what} is {labels.dtype}{nan}: save labels as integers 0..C-1")
    labels_N = labels.reshape(-1).astype(np.int64)
    if (labels_N < 0).any():
        raise UserError(f"{what} is negative at index {int(np.argmax(labels_N < 0))}: use labels 0..C-1")
    return labels_N


def check_not_empty(where: str, splits: Mapping[SplitName, RawSplit]) -> None:
    """Check that no split is empty.

    Raises:
        UserError: one is.
    """
    for name, split in splits.items():
        if len(split) == 0:
            raise UserError(f"{where} has no {name} images: add at least one of each class")


def check_class_names(where: str, class_names: Sequence[str]) -> None:
    """Check that the names can stand in a line of a table and be written into a file.

    Raises:
        UserError: one has a line end, another control character, or half a character.
    """
    for name in class_names:
        # Python reads bytes that are no text in the locale as halves of a pair.
        if any(unicodedata.category(character) == "Cs" for character in name):
            raise UserError(
                f"{where}: the class name {name!r} has letters that this locale cannot read: set PYTHONUTF8=1 and a "
                "locale such as C.UTF-8, or rename the class"
            )
        if any(unicodedata.category(character) in UNPRINTABLE for character in name):
            raise UserError(
                f"{where}: the class name {name!r} has a line end or another character that cannot be printed: rename "
                "the class"
            )


def check_classes(where: str, class_names: Sequence[str]) -> None:
    """Check that there are at least two classes.

    Raises:
        UserError: there is only one.
    """
    if len(class_names) < 2:
        raise UserError(f"{where} has only one class, {class_names[0]!r}: at least two are needed")


def check_labels(where: str, splits: Mapping[SplitName, RawSplit], class_names: Sequence[str]) -> None:
    """Check that every label is a class.

    Raises:
        UserError: a label is out of range.
    """
    for split in splits.values():
        highest = int(split.labels_N.max())
        if highest >= len(class_names):
            raise UserError(
                f"{where}: label {highest} of {split.names[int(split.labels_N.argmax())]} is out of range "
                f"0..{len(class_names) - 1}: correct the label, or name {highest + 1} classes"
            )


def check_no_empty_class(where: str, train: RawSplit, class_names: Sequence[str]) -> None:
    """Check that every class has a training image.

    Raises:
        UserError: a class has none.
    """
    counts_C = np.bincount(train.labels_N, minlength=len(class_names))
    empty = [name for name, count in zip(class_names, counts_C, strict=True) if count == 0]
    if empty:
        named = ", ".join(map(repr, empty[:MOST_NAMED]))
        more = f" and {len(empty) - MOST_NAMED} more" if len(empty) > MOST_NAMED else ""
        raise UserError(
            f"{where} has no training image of class {named}{more}: add one, or leave it out with --dataset.drop"
        )


def classes_without_images(val: RawSplit, class_names: Sequence[str]) -> tuple[str, ...]:
    """Return a note on the classes that no validation image is of, if there are any."""
    counts_C = np.bincount(val.labels_N, minlength=len(class_names))
    note = absence_note(
        "validation image", [name for name, count in zip(class_names, counts_C, strict=True) if count == 0]
    )
    return () if note is None else (note,)
