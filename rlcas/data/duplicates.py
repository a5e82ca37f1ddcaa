"""Identical pictures and shared patients across splits: found by exact pixels and by ids."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from rlcas.data.pixels import Survey
from rlcas.data.source import RawSplit

NUM_SHOWN = 3


def identical_pictures(splits: Mapping[str, RawSplit], surveys: Mapping[str, Survey]) -> tuple[str, ...]:
    """Return a note for every pair of splits that share exact pixels, with how many labels conflict."""
    notes = []
    for first, second in combinations(splits, 2):
        where_in_first = {digest: i for i, digest in reversed(list(enumerate(surveys[first].digests)))}
        pairs = [
            (where_in_first[digest], j)
            for j, digest in enumerate(surveys[second].digests)
            if digest in where_in_first
        ]
        if pairs:
            notes.append(_note(first, second, splits, pairs))
    return tuple(notes)


def _note(first: str, second: str, splits: Mapping[str, RawSplit], pairs: list[tuple[int, int]]) -> str:
    a, b = splits[first], splits[second]
    conflicts = [(i, j) for i, j in pairs if a.labels_N[i] != b.labels_N[j]]
    note = f"{len(pairs)} {second} images are identical to {first} images: {_shown(a, b, pairs)}"
    if conflicts:
        note += f"; {len(conflicts)} of them with conflicting labels: {_shown(a, b, conflicts)}"
    return note


def _shown(first: RawSplit, second: RawSplit, pairs: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{first.names[i]} = {second.names[j]}" for i, j in pairs[:NUM_SHOWN])
    return shown + (", …" if len(pairs) > NUM_SHOWN else "")


def shared_patients(splits: Mapping[str, RawSplit]) -> tuple[str, ...]:
    """Return a note for every pair of splits that share a patient: test figures would be too good."""
    ids = {name: set(split.patients_N) for name, split in splits.items() if split.patients_N is not None}
    notes = []
    for first, second in combinations(ids, 2):
        shared = sorted(ids[first] & ids[second])
        if shared:
            shown = ", ".join(map(str, shared[:NUM_SHOWN])) + (", …" if len(shared) > NUM_SHOWN else "")
            notes.append(f"{len(shared)} patients are in both {first} and {second} (a leak): {shown}")
    return tuple(notes)
