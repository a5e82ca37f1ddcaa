"""Classes of one source in the order of another, by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from rlcas.data.source import RawSplit, counted
from rlcas.errors import UserError
from rlcas.types import Int64

WHOLE_NUMBER = re.compile(r"0*([0-9]*)(?:\.0*)?")


def in_class_order(split: RawSplit, found: Sequence[str] | None, known: Sequence[str], where: str) -> Int64:
    """Return [N] labels of the split, renumbered from the class order of their source to a classifier's.

    Args:
        split: labels are indices into `found`.
        found: class names of the source; None: it has numbers alone, which are the classes' names where these are
            numbers, and else stand for the classes in their order.
        known: class names of the classifier.
        where: the source, for the error.

    Raises:
        UserError: a class is not known to the classifier.
    """
    if found is None and not all(map(WHOLE_NUMBER.fullmatch, known)):
        _check_numbers(split, known, where)
        return split.labels_N
    if found is None:
        found = [str(number) for number in range(int(split.labels_N.max()) + 1)]
    present = sorted(set(split.labels_N.tolist()))
    index_of = {
        **{_plain(name): i for i, name in enumerate(known)},
        **{name: i for i, name in enumerate(known)},
    }
    ids = {label: index_of.get(found[label], index_of.get(_plain(found[label]))) for label in present}
    if unknown := [repr(found[label]) for label in present if ids[label] is None]:
        raise UserError(
            f"{where} has classes that the classifier does not know: {counted(unknown)}; it knows "
            f"{', '.join(known)}: name the folders or class_names so, or leave them out"
        )
    id_F = np.array([ids.get(label) or 0 for label in range(len(found))], np.int64)
    return id_F[split.labels_N]


def _plain(name: str) -> str:
    """Return a whole number in one form: tables write class 1 as 1, 01 or 1.0."""
    whole = WHOLE_NUMBER.fullmatch(name.strip())
    return whole.group(1) or "0" if whole else name


def _check_numbers(split: RawSplit, known: Sequence[str], where: str) -> None:
    highest = int(split.labels_N.max())
    if highest >= len(known):
        raise UserError(
            f"{where} has label {highest} ({split.names[int(split.labels_N.argmax())]}), but the classifier knows "
            f"only {len(known)} classes: {', '.join(known)}"
        )
