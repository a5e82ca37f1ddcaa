"""Identical pictures and shared patients across splits: found by exact pixels and by ids."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from rlcas.data.pixels import Survey
from rlcas.data.source import RawSplit, SplitName
from rlcas.data.split import Splits

NUM_SHOWN = 3


def identical_pictures(splits: Splits, surveys: Mapping[SplitName, Survey]) -> tuple[str, ...]:
    """Return a note for every pair of splits that share exact pixels, with how many labels conflict."""
    notes = []
    for first, second in combinations(splits, 2):
        index_of = {digest: i for i, digest in reversed(list(enumerate(surveys[first].digests)))}
        found = enumerate(surveys[second].digests)
        pairs = [(index_of[digest], j) for j, digest in found if digest in index_of]
        if pairs:
            notes.append(_note(first, second, splits, pairs))
    return tuple(notes)


def _note(first: SplitName, second: SplitName, splits: Splits, pairs: list[tuple[int, int]]) -> str:
    a, b = splits[first], splits[second]
    conflicts = [(i, j) for i, j in pairs if a.labels_N[i] != b.labels_N[j]]
    note = f"{len(pairs)} {second} images are identical to {first} images: {_shown(a, b, pairs)}"
    if conflicts:
        note += f"; {len(conflicts)} of them with conflicting labels: {_shown(a, b, conflicts)}"
    return note


def _shown(first: RawSplit, second: RawSplit, pairs: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{first.names[i]} = {second.names[j]}" for i, j in pairs[:NUM_SHOWN])
    return shown + (", …" if len(pairs) > NUM_SHOWN else "")


def shared_patients(splits: Splits) -> tuple[str, ...]:
    """Return a note for every pair of splits that share a patient: test figures would be too good."""
    ids = {name: set(split.patients_N) for name, split in splits.items() if split.patients_N is not None}
    notes = []
    for first, second in combinations(ids, 2):
        shared = sorted(ids[first] & ids[second])
        if shared:
            shown = ", ".join(map(str, shared[:NUM_SHOWN])) + (", …" if len(shared) > NUM_SHOWN else "")
            notes.append(f"{len(shared)} patients are in both {first} and {second} (a leak): {shown}")
    return tuple(notes)
