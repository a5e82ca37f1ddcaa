"""Images that belong together: patients in file names, and ids that no setting groups by."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
MOST_HEADERS = 2000
"""Files whose headers are read for a note."""
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
    (r"(?i)^(?:left|right|o[ds]|[lr])(?:[\W_]+|(?=\d))(.+)$", "after left or right"),
)
"""Parts of file names that may be a patient, the shortest first."""
PARTS = re.compile(
    r"(?<![a-z])(?:images?|imgs?|part|fold|batch|chunk|shard|set|split|class|label|grade|level|group)s?(?![a-z])",
    re.I,
)
"""Words of folders that are pieces of a set or classes."""


def named_patients(split: RawSplit, dataset: DatasetConfig) -> RawSplit:
    """Return the split with the patients that `dataset.patient_pattern` finds in the names of its files.

    If no file's name has one, the whole paths are searched, for patients who have folders.

    Raises:
        UserError: it matches none of them.
    """
    if dataset.patient_pattern is None or len(split) == 0:
        return split
    pattern = re.compile(dataset.patient_pattern)
    found = _matched(pattern, map(stem_of, split.names))
    if not any(found):
        found = _matched(pattern, map(_without_suffix, split.names))
    if not any(found):
        raise UserError(
            f"dataset.patient_pattern {dataset.patient_pattern} matches no file name and no path, such as "
            f"{_without_suffix(split.names[0])}: correct it, or --dataset.patient_pattern none"
        )
    return replace(split, patients_N=own_groups(found, split.names))


def _matched(pattern: re.Pattern[str], texts: Iterable[str]) -> list[str]:
    """Return the pattern's group in each of the texts; empty where it does not match."""
    return [match[1] or "" if (match := pattern.search(text)) else "" for text in texts]


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
    notes = _pairing_note(names, labels_N, does) or _folders_note(names, labels_N, does)
    return notes or _headers_note(splits)


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


def _without_suffix(name: str) -> str:
    """Return a file's path without suffix."""
    folder, slash, _ = name.rpartition("/")
    return f"{folder}{slash}{stem_of(name)}"


def _pairing_note(names: Sequence[str], labels_N: Int64, does: str) -> tuple[str, ...]:
    # Equal names in two folders, as of two classes that are counted from 1, do not pair.
    places = list({stem_of(name): i for i, name in reversed(list(enumerate(names)))}.values())[::-1]
    stems, alone_N = [stem_of(names[i]) for i in places], labels_N[places]
    for pattern, words in PATTERNS:
        starts = _matched(re.compile(pattern), stems)
        if starts.count("") <= len(starts) / 10 and _groups(starts, alone_N, MOST_FRAMES):
            members = _members(stems, starts)
            return (
                f"file names pair, {len(set(starts))} {words} for {len(names)} images, as {counted(members)}: if these "
                f"are of one patient, --dataset.patient_pattern '{pattern}' {does}",
            )
    return ()


def _folders_note(names: Sequence[str], labels_N: Int64, does: str) -> tuple[str, ...]:
    """Return a note if folders on the images' paths are numbered like patients, as patient00001/study1."""
    most = max((name.count("/") for name in names), default=0)
    for level in range(most):
        above = "^" + "[^/]+/" * level
        pattern = f"{above}([^/]+)/"
        folders = _matched(re.compile(pattern), names)
        numbered = sum(any(map(str.isdigit, folder)) and not PARTS.search(folder) for folder in folders)
        if numbered >= 0.9 * len(names) and _groups(folders, labels_N, MOST_FRAMES):
            members = _members(names, folders)
            return (
                f"folders may be of patients, {len(set(folders))} for {len(names)} images, as {counted(members)}: if "
                f"images of one belong together, --dataset.patient_pattern '{pattern}' {does}",
            )
    return ()


def _headers_note(splits: Sequence[RawSplit]) -> tuple[str, ...]:
    """Return a note if the headers of the files name patients who have several images."""
    read = (split.read_header_ids for split in splits)
    ids = itertools.chain.from_iterable(ids_of() for ids_of in read if ids_of is not None)
    named = [patient for patient in itertools.islice(ids, MOST_HEADERS) if patient]
    # One id for all is what anonymisation leaves.
    if not 1 < len(set(named)) < len(named):
        return ()
    return (
        f"DICOM headers name {len(set(named))} patients (PatientID) for {len(named)} images, which are not used: a "
        f"table (csv:) with these in a column patient_id {KEEPS}",
    )


def _members(names: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Return the names of the first group that has several."""
    several = next(group for group, count in Counter(groups).items() if group and count > 1)
    return [name for name, group in zip(names, groups, strict=True) if group == several]


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
