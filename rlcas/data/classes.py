"""Classes of a source: their order, names that are nearly the same, and those that settings merge or drop."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

import numpy as np

from rlcas.config import DatasetConfig
from rlcas.data.source import RawSplit, Source, counted
from rlcas.errors import UserError
from rlcas.types import Int64

MAX_DIGITS = 4000
"""Digits of a name that is taken for a number: a longer one is no number that anybody counts with."""
MOST_NAMED = 30
"""Classes that one line names."""
NUM_PARTS = 3
"""Train, val and test."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the different names sorted: by number if all are numbers, as 2, 10.0, else as text."""
    different = set(names)
    if all(map(_is_number, different)):
        # Several texts of one number, such as 1 and 01, are in the order of their texts.
        return tuple(sorted(different, key=lambda name: (Decimal(name), name)))
    return tuple(sorted(different))


def with_classes(source: Source, dataset: DatasetConfig) -> Source:
    """Return the source with the classes that `dataset.merge` and `dataset.drop` leave, and a note on them.

    Raises:
        UserError: two classes have one name, or a setting names a class that there is not.
    """
    names = source.class_names
    if names is None and (dataset.merge or dataset.drop):
        highest = max(int(split.labels_N.max(initial=-1)) for split in source.splits.values())
        names = tuple(str(number) for number in range(highest + 1))
    if names is None:
        return source
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(
            f"{source.where} has {names.count(repeated[0])} classes of the name {repeated[0]!r}: give each its own"
        )
    if dataset.merge or dataset.drop:
        source = _regrouped(source, names, dataset)
    return replace(source, notes=source.notes + _near_twins(source.class_names or names) + _too_few(source))


def members(names: Sequence[str], given: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names in a setting's value: a list, one of `names`, or some that are joined by +."""
    if not isinstance(given, str):
        return tuple(given)
    return (given,) if given in names else tuple(part.strip() for part in given.split("+"))


def _regrouped(source: Source, names: tuple[str, ...], dataset: DatasetConfig) -> Source:
    renamed = _renamed(source.where, names, dataset)
    kept = tuple(dict.fromkeys(new for new in map(renamed.get, names) if new is not None))
    # A source whose classes are sorted stays sorted.
    kept = in_order(kept) if names == in_order(names) else kept
    id_of: dict[str | None, int] = {name: class_id for class_id, name in enumerate(kept)}
    new_ids_C = np.array([id_of.get(renamed[name], -1) for name in names], np.int64)
    return replace(
        source,
        class_names=kept,
        splits={name: _relabelled(split, new_ids_C) for name, split in source.splits.items()},
        notes=source.notes + _changes(source, names, renamed),
    )


def _is_number(name: str) -> bool:
    return len(name) <= MAX_DIGITS and _NUMBER.fullmatch(name) is not None


def _near_twins(names: Sequence[str]) -> tuple[str, ...]:
    same: dict[object, list[str]] = {}
    for name in names:
        key = Decimal(name.strip()) if _is_number(name.strip()) else " ".join(name.casefold().split())
        same.setdefault(key, []).append(name)
    twins = [" and ".join(map(repr, group)) for group in same.values() if len(group) > 1]
    if not twins:
        return ()
    return (
        f"class names that differ only in case, white space or the form of a number: {counted(twins)}; they are "
        "different classes, --dataset.merge NEW=A+B makes one of them",
    )


def _too_few(source: Source) -> tuple[str, ...]:
    """Return a note on the classes that a cut of the source cannot put into every split."""
    if "all" not in source.splits or source.class_names is None:
        return ()
    split = source.splits["all"]
    groups_N = np.arange(len(split)) if split.patients_N is None else split.patients_N
    pairs = set(zip(groups_N.tolist(), split.labels_N.tolist(), strict=True))
    num_groups = Counter(label for _, label in pairs)
    few = [
        f"{name} ({num_groups[i]})" for i, name in enumerate(source.class_names) if num_groups[i] < NUM_PARTS
    ]
    if not few:
        return ()
    unit = "images" if split.patients_N is None else "patients"
    return (
        f"classes with fewer than {NUM_PARTS} {unit}, which cannot be in each of train, val and test: {counted(few)}; "
        "--dataset.merge NEW=A+B or --dataset.drop A,B",
    )


def _renamed(where: str, names: Sequence[str], dataset: DatasetConfig) -> dict[str, str | None]:
    """Return name -> name after merging, None for a class that is dropped."""
    renamed: dict[str, str | None] = {name: name for name in names}
    parts = {new: members(names, given) for new, given in dataset.merge.items()}
    mentioned = [("merge", name) for part in parts.values() for name in part]
    mentioned += [("drop", name) for name in dataset.drop]
    for setting, name in mentioned:
        if name not in renamed:
            raise UserError(
                f"dataset.{setting} names {name!r}, which is no class of {where} ({_listed(names)}): correct it, or "
                f"name none ({'--dataset.merge none' if setting == 'merge' else '--dataset.drop='})"
            )
    if twice := [name for name, count in Counter(name for _, name in mentioned).items() if count > 1]:
        raise UserError(f"dataset.merge and dataset.drop name class {twice[0]!r} twice: keep one")
    renamed |= {name: new for new, part in parts.items() for name in part}
    return renamed | dict.fromkeys(dataset.drop)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (", …" if len(names) > MOST_NAMED else "")


def _relabelled(split: RawSplit, new_ids_C: Int64) -> RawSplit:
    # A label above the names is left for the check that names it.
    known_N = split.labels_N < len(new_ids_C)
    labels_N = np.where(known_N, new_ids_C[np.where(known_N, split.labels_N, 0)], split.labels_N)
    kept = np.flatnonzero(labels_N >= 0)
    return replace(split.take(kept), labels_N=labels_N[kept])


def _changes(source: Source, names: Sequence[str], renamed: dict[str, str | None]) -> tuple[str, ...]:
    sizes_C = sum(np.bincount(split.labels_N, minlength=len(names)) for split in source.splits.values())
    size_of = {name: int(size) for name, size in zip(names, np.asarray(sizes_C), strict=False)}
    merged: dict[str, list[str]] = {}
    for name, new in renamed.items():
        if new is not None:
            merged.setdefault(new, []).append(name)
    notes = [
        f"class {new} is {' + '.join(f'{name} ({size_of[name]})' for name in part)}"
        for new, part in merged.items()
        if part != [new]
    ]
    dropped = [f"{name} ({size_of[name]} images)" for name, new in renamed.items() if new is None]
    return (*notes, f"classes left out: {', '.join(dropped)}") if dropped else tuple(notes)
