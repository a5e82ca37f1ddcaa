"""Images that belong together: patients in file names, and ids that no setting groups by."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rlcas.config import DatasetConfig
from rlcas.data.source import RawSplit, SplitName, counted
from rlcas.errors import UserError
from rlcas.types import Int64

FEWEST = 5
"""Groups below which repeated values are rather classes or devices than patients."""
MOST_IMAGES = 50
"""Mean number of images of a column's value above which it is rather a property than a patient."""
MOST_FRAMES = 1000
"""Mean number above which the start of a file's name is no patient either, of whom there may be films."""
LEAST_REPEATED = 1.05
"""Mean number of images of a group below which hardly any value repeats."""
ID_WORDS = (
    "id",
    "no",
    "nr",
    "num",
    "number",
    "code",
    "key",
    "uid",
    "study",
    "exam",
    "visit",
    "accession",
    "series",
)
NO_ID = frozenset((
    *("", "na", "n/a", "#n/a", "<na>", "n.a.", "nan", "none", "null", "nil", "unknown", "unk", "missing"),
    *("not available", "not applicable", "undefined", "unspecified", "-", "--", "_", ".", "?", "??"),
))  # fmt: skip
"""What stands, in lower case, in place of an id that is not known."""
KEEPS = "keeps them in one split"
_CODE = re.compile(r"[^\W\d]+[\W_]?\d{2,}\w*")
PATTERNS = (
    (r"^([^\W_]+)[\W_]", "up to the first separator"),
    (r"^([^\W_]+[\W_]+[^\W_]+)[\W_]", "up to the second separator"),
    (r"^([^\W_]+[\W_]+[^\W_]+[\W_]+[^\W_]+)[\W_]", "up to the third separator"),
    (r"^(.*\d)[A-Za-z]$", "without the letter at the end"),
)
"""Parts of file names that may be a patient, the shortest first."""


def named_patients(split: RawSplit, dataset: DatasetConfig) -> RawSplit:
    """Return the split with the patients that `dataset.patient_pattern` finds in the names of its files.

    Raises:
        UserError: it matches none of them.
    """
    if dataset.patient_pattern is None or len(split) == 0:
        return split
    pattern = re.compile(dataset.patient_pattern)
    found = [match[1] if (match := pattern.search(stem_of(name))) else "" for name in split.names]
    if not any(found):
        raise UserError(
            f"dataset.patient_pattern {dataset.patient_pattern} matches no file name, such as "
            f"{stem_of(split.names[0])}: correct it, or --dataset.patient_pattern none"
        )
    return replace(split, patients_N=own_groups(found, split.names))


def own_groups(ids: Sequence[str], names: Sequence[str]) -> NDArray[np.str_]:
    """Return the ids [N], where an image without one is a group of its own, named after the image.

    A word that stands for no id, such as NA, is none.
    """
    known = set(ids)
    return np.array(
        [
            _unused(f"no id: {name}", known) if given.strip().lower() in NO_ID else given
            for given, name in zip(ids, names, strict=True)
        ],
        np.str_,
    )


def patients_note(parts: Mapping[SplitName, RawSplit]) -> tuple[str, ...]:
    """Return a note on images without an id, or, where there are no patients, on file names that pair."""
    splits = list(parts.values())
    with_ids = [split.patients_N for split in splits if split.patients_N is not None]
    if with_ids:
        lone = sum(str(patient).startswith("no id: ") for ids in with_ids for patient in ids)
        return (f"images without a patient, each a patient of its own: {lone}",) if lone else ()
    names = [name for split in splits for name in split.names]
    labels_N = np.concatenate([split.labels_N for split in splits]) if splits else np.zeros(0, np.int64)
    does = KEEPS if set(parts) != {"train", "val", "test"} else "names those that are in two splits"
    return _pairing_note([stem_of(name) for name in names], labels_N, does)


def repeating_note(column: str, values: Sequence[str], labels_N: Int64) -> tuple[str, ...]:
    """Return a note if the values [N] of an unused column repeat like ids of patients."""
    if not _groups(values, labels_N, MOST_IMAGES):
        return ()
    words = re.findall(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]*", column)
    named = any(word.lower() in ID_WORDS for word in words)
    codes = sum(_CODE.fullmatch(value) is not None for value in values) > len(values) / 2
    whole = all(value == "" or not re.fullmatch(r"[+-]?\d*[.,]\d*", value) for value in values)
    if not (named or codes or (whole and _one_class_each(values, labels_N))):
        return ()
    return (
        f"column {column} repeats like ids, {len(set(values))} for {len(values)} images, and is not used: if images "
        f"of one belong together, --dataset.columns patient={column} {KEEPS}",
    )


def stem_of(name: str) -> str:
    """Return a file's name without folder and suffix."""
    return name.rpartition("/")[2].rpartition(".")[0] or name.rpartition("/")[2]


def _pairing_note(stems: Sequence[str], labels_N: Int64, does: str) -> tuple[str, ...]:
    for pattern, words in PATTERNS:
        compiled = re.compile(pattern)
        starts = [match[1] if (match := compiled.search(stem)) else "" for stem in stems]
        if starts.count("") <= len(starts) / 10 and _groups(starts, labels_N, MOST_FRAMES):
            group = next(start for start, count in Counter(starts).items() if start and count > 1)
            members = [stem for stem, start in zip(stems, starts, strict=True) if start == group]
            return (
                f"file names pair, {len(set(starts))} {words} for {len(stems)} images, as {counted(members)}: if these "
                f"are of one patient, --dataset.patient_pattern '{pattern}' {does}",
            )
    return ()


def _groups(values: Sequence[str], labels_N: Int64, most_images: int) -> bool:
    """Return whether values are neither nearly all different, nor few, nor the classes' own."""
    filled = [value for value in values if value]
    different = set(filled)
    if not filled or not LEAST_REPEATED <= len(filled) / len(different) <= most_images:
        return False
    num_classes = len(np.unique(labels_N))
    if len(different) < max(FEWEST, min(2 * num_classes, len(filled) // 4)):
        return False
    # A class whose files all begin alike, as ImageNet's do, has a value of its own.
    pairs = {(value, int(label)) for value, label in zip(values, labels_N, strict=True) if value}
    return not (len(pairs) == len(different) and len(different) <= 2 * num_classes)


def _one_class_each(values: Sequence[str], labels_N: Int64) -> bool:
    """Return whether values that repeat nearly always have one class, far more than by chance."""
    classes_of: dict[str, list[int]] = {}
    for value, label in zip(values, labels_N.tolist(), strict=True):
        classes_of.setdefault(value, []).append(label)
    repeated = [labels for value, labels in classes_of.items() if value and len(labels) > 1]
    shares = np.bincount(labels_N) / len(labels_N)
    pure = sum(len(set(labels)) == 1 for labels in repeated)
    return bool(repeated) and pure >= 0.9 * len(repeated) and float((shares**2).sum()) < 0.8


def _unused(name: str, known: set[str]) -> str:
    while name in known:
        name += "'"
    return name
