"""Identical pictures and shared patients in different splits, found by exact pixels and by ids."""

from __future__ import annotations

from itertools import combinations

from rlcas.data.source import SplitName, counted
from rlcas.data.split import Splits


def identical_pictures(splits: Splits) -> tuple[str, ...]:
    """Return a note for every pair of splits that share pictures, with those whose labels conflict."""
    notes = []
    for first, second in combinations(splits, 2):
        # Backwards, so that of equal pictures in a split the first one is named.
        index_of = {digest: i for i, digest in reversed(list(enumerate(splits[first].surveyed.digests)))}
        found = enumerate(splits[second].surveyed.digests)
        pairs = [(index_of[digest], j) for j, digest in found if digest in index_of]
        if pairs:
            notes.append(_note(first, second, splits, pairs))
    return tuple(notes)


def _note(first: SplitName, second: SplitName, splits: Splits, pairs: list[tuple[int, int]]) -> str:
    a, b = splits[first], splits[second]
    same = [f"{a.names[i]} = {b.names[j]}" for i, j in pairs]
    conflicting = [f"{a.names[i]} = {b.names[j]}" for i, j in pairs if a.labels_N[i] != b.labels_N[j]]
    note = f"identical pictures in {first} and {second}: {counted(same)}"
    return note + (f"; of them with conflicting labels: {counted(conflicting)}" if conflicting else "")


def shared_patients(splits: Splits) -> tuple[str, ...]:
    """Return a note for every pair of splits that share a patient, which makes test figures too good."""
    ids = {name: set(split.patients_N) for name, split in splits.items() if split.patients_N is not None}
    notes = []
    for first, second in combinations(ids, 2):
        shared = sorted(map(str, ids[first] & ids[second]))
        if shared:
            notes.append(f"patients in both {first} and {second}, a leak: {counted(shared)}")
    return tuple(notes)
