"""Which columns of a table are path, label, patient and split: named by a setting, or recognised by common names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlcas.config import DatasetConfig
from rlcas.data.decode import is_listed_image
from rlcas.data.rows import Rows, comment_hint
from rlcas.data.split_column import split_columns
from rlcas.errors import UserError

STANDARD = {"path": "path", "label": "label", "patient": "patient_id", "split": "split"}
"""Role -> the name that needs no note."""
NONE = "none"
"""In `dataset.columns`: there is no such column."""
PATHS: Sequence[tuple[str, ...]] = (
    ("path",),
    (
        "filepath",
        "filepaths",
        "imagepath",
        "imgpath",
        "file",
        "filename",
        "imagefile",
        "imagefilename",
        "imgfile",
    ),
    ("image", "imageid", "imagename", "img", "imgid", "imgname", "isicid", "isicname", "picture", "photo"),
    ("id", "idcode", "imageindex", "name"),
)
"""Names of columns with the image, without case and punctuation; the first line that has any decides."""
LABEL_ENDS = ("label", "class", "diagnosis", "diagnostic", "grade", "histology", "pathology", "category")
LABELS = (
    "labels",
    "dx",
    "level",
    "target",
    "classname",
    "classification",
    "subtype",
    "species",
    "disease",
    "classid",
)
PATIENTS: Sequence[tuple[str, ...]] = tuple(
    (form.format(word),)
    for word in ("patient", "subject", "participant", "person", "case", "lesion")
    for form in ("{}id", "{}", "{}no", "{}number", "{}code", "id{}")
)
"""Names of columns with the patient, the widest group first: a patient has several lesions."""
BINARY = {"0": False, "1": True, "0.0": False, "1.0": True}
"""Cells of one-hot columns."""
FLAGS = {"", "yes", "no", "true", "false", "case", "control", *BINARY}
"""Cells of a column named case that says whether it is one, and not which."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table, each by its place."""

    path: int | None
    """None: only a pattern of `dataset.images` names the image."""
    labels: tuple[int, ...]
    """One column of names, or several of 0 and 1, a class each."""
    patient: int | None
    split: int | None
    recognised: bool
    """Whether a column that is not named as in `STANDARD` was recognised."""

    def described(self, names: Sequence[str]) -> str:
        """Return the columns as `dataset.columns` takes them; empty if all have the names in `STANDARD`."""
        found = {"path": self.path, "patient": self.patient, "split": self.split}
        named = {role: names[place] for role, place in found.items() if place is not None}
        named["label"] = "+".join(names[place] for place in self.labels)
        if all(named[role] == STANDARD[role] for role in named):
            return ""
        return ",".join(f"{role}={named[role]}" for role in STANDARD if role in named)


def columns_of(rows: Rows, dataset: DatasetConfig) -> Columns:
    """Return which columns are meant.

    Raises:
        UserError: a named column does not exist, none is recognised, or several may be meant.
    """
    names, given = rows.columns, {str(role): name for role, name in dataset.columns.items()}
    patient = _optional(rows, given, "patient", _first(names, PATIENTS))
    if "patient" not in given and patient is not None and (dataset.patient_pattern or _is_flag(rows, patient)):
        patient = None
    split = _optional(rows, given, "split", split_columns(rows, given.values()))
    path = path_place(rows, dataset)
    taken = {path, patient, split}
    labels = _named_labels(rows, given["label"]) if "label" in given else _recognised_labels(rows, taken)
    places: Mapping[str, int | None] = {"path": path, "label": labels[0], "patient": patient, "split": split}
    recognised = any(
        place is not None and names[place] != STANDARD[role]
        for role, place in places.items()
        if role not in given
    )
    return Columns(path, labels, patient, split, recognised)


def candidates(rows: Rows) -> dict[str, list[int]]:
    """Return role -> places of the columns that may be meant by it; labels may be several of 0 and 1."""
    path, patient = _first(rows.columns, PATHS), _first(rows.columns, PATIENTS)
    free = [i for i in range(len(rows.columns)) if i not in {*path, *patient}]
    return {
        "path": path,
        "label": _label_candidates(rows, free),
        "patient": patient,
        "one_hot": list(_one_hot(rows, free)),
    }


def place_of(rows: Rows, name: str, setting: str) -> int:
    """Return the place of the column `name`, in any case if there is one; in a list without header by its number.

    Raises:
        UserError: there is none, or there are several; the message names `setting`.
    """
    exact = [i for i, column in enumerate(rows.columns) if column == name]
    found = exact or [i for i, column in enumerate(rows.columns) if column.lower() == name.lower()]
    if len(found) == 1:
        return found[0]
    fault = f"names {len(found)} columns" if found else "is no column"
    raise UserError(f"{rows.path} line 1: {setting} {name} {fault} of {', '.join(rows.columns)}: correct it")


def path_place(rows: Rows, dataset: DatasetConfig) -> int | None:
    """Return the place of the path column; None: only a pattern of `dataset.images` names the image.

    Raises:
        UserError: the column that is named does not exist, none is recognised, or several may be meant.
    """
    if "path" in dataset.columns:
        return place_of(rows, dataset.columns["path"], "dataset.columns path")
    if not rows.has_header:
        return _path_without_header(rows)
    found = _first(rows.columns, PATHS)
    if len(found) == 1:
        return found[0]
    # A pattern names the columns that it needs.
    if "{" in (dataset.images or ""):
        return None
    raise _not_found(rows, "path", found)


def _is_flag(rows: Rows, place: int) -> bool:
    return _plain(rows.columns[place]) == "case" and FLAGS.issuperset(map(str.lower, rows.column(place)))


def _optional(rows: Rows, given: Mapping[str, str], role: str, found: Sequence[int]) -> int | None:
    if role not in given:
        if len(found) > 1:
            raise _not_found(rows, role, found)
        return found[0] if found else None
    return None if given[role].lower() == NONE else place_of(rows, given[role], f"dataset.columns {role}")


def _path_without_header(rows: Rows) -> int:
    first = rows.cells[0] if rows.cells else ()
    found = [i for i, cell in enumerate(first) if is_listed_image(os.path.join(rows.path.parent, cell))]  # noqa: PTH118
    if len(found) != 1:
        raise _not_found(rows, "path", found)
    return found[0]


def _named_labels(rows: Rows, given: str) -> tuple[int, ...]:
    setting = "dataset.columns label"
    if given in rows.columns or "+" not in given:
        return (place_of(rows, given, setting),)
    return tuple(place_of(rows, name.strip(), setting) for name in given.split("+"))


def _recognised_labels(rows: Rows, taken: set[int | None]) -> tuple[int, ...]:
    free = [i for i in range(len(rows.columns)) if i not in taken]
    if not rows.has_header and len(free) == 1:
        return (free[0],)
    found = _label_candidates(rows, free)
    if len(found) == 1:
        return (found[0],)
    one_hot = () if found else _one_hot(rows, free)
    if not one_hot:
        raise _not_found(rows, "label", found)
    return one_hot


def _label_candidates(rows: Rows, free: Sequence[int]) -> list[int]:
    exact = [i for i in free if rows.columns[i].lower() == "label"]
    return exact or [i for i in free if _is_label(rows.columns[i])]


def _one_hot(rows: Rows, free: Sequence[int]) -> tuple[int, ...]:
    """Return the columns of 0 and 1, if most rows have a 1 in one of them, and none in several; else none."""
    binary = tuple(i for i in free if BINARY.keys() >= set(rows.column(i)))
    if len(binary) < 2 or not rows.cells:
        return ()
    ones = [sum(BINARY[row[i]] for i in binary) for row in rows.cells]
    return binary if max(ones) == 1 and sum(ones) > len(ones) / 2 else ()


def _not_found(rows: Rows, role: str, found: Sequence[int]) -> UserError:
    where, listed = f"{rows.path} line 1", ", ".join(rows.columns)
    if len(found) > len({rows.columns[i] for i in found}):
        twin = next(rows.columns[i] for i in found if rows.columns.count(rows.columns[i]) > 1)
        return UserError(f"{where}: {rows.columns.count(twin)} columns are named {twin}: rename all but one")
    if found:
        choices = " or ".join(f"--dataset.columns {role}={rows.columns[i]}" for i in found)
        return UserError(f"{where}: several columns may be the {role}: choose {choices} (of {listed})")
    by_number = (
        "" if not rows.has_header else "; if this line is an image, name columns by number: path=1,label=2"
    )
    several = ", or label=A+B+C for columns of 0 and 1" if role == "label" else ""
    return UserError(
        f"{where}: no column {role} among {listed}: add it, or name the one that is meant with "
        f"--dataset.columns {role}=COLUMN{several}{by_number}{comment_hint(rows.columns)}"
    )


def _first(names: Sequence[str], tiers: Sequence[tuple[str, ...]]) -> list[int]:
    """Return the places of the columns that the first tier with any names."""
    plain = [_plain(name) for name in names]
    found = ([i for i, name in enumerate(plain) if name in tier] for tier in tiers)
    return next((places for places in found if places), [])


def _is_label(name: str) -> bool:
    return _plain(name) in LABELS or _plain(name).endswith(LABEL_ENDS)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())
