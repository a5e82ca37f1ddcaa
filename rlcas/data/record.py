"""The record of a split, decided once and kept in the run's folder: names, classes and hashes of each part's images.

Whoever reads the images again takes those that the record lists, whatever has come to the source since, in the
record's order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from rlcas.data.source import RawSplit, Source, SplitName, counted, joined
from rlcas.data.split import Splits
from rlcas.data.survey import with_survey
from rlcas.errors import UserError
from rlcas.storage.atomic import write_json
from rlcas.storage.reading import read_typed
from rlcas.types import Int64, PartRecord, SplitRecord

SCHEMA_VERSION = 1
MISSING = -1
NEW_RUN = "begin a new run to use the images as they are now"


class PartFacts(TypedDict):
    """[N] name, class and hash of the images of a part."""

    names: list[str]
    labels: list[Annotated[int, Field(ge=0)]]
    digests: list[str]


class RecordFacts(TypedDict):
    """The content of split.json."""

    schema_version: Literal[1]
    class_names: list[str]
    window: tuple[float, float] | None
    parts: dict[Literal["train", "val", "test", "unused"], PartFacts]


_FACTS = TypeAdapter(RecordFacts)


def part_record(split: RawSplit) -> PartRecord:
    """Return the record of a surveyed split."""
    return PartRecord(
        names=tuple(split.names),
        labels_N=split.labels_N,
        digests=tuple(digest.hex() for digest in split.surveyed.digests),
    )


def write_record(record: SplitRecord, path: Path) -> None:
    """Write the record as JSON."""
    parts = {
        name: {"names": part.names, "labels": part.labels_N, "digests": part.digests}
        for name, part in record.parts.items()
    }
    write_json(
        path,
        {
            "schema_version": SCHEMA_VERSION,
            "class_names": record.class_names,
            "window": record.window,
            "parts": parts,
        },
    )


def read_record(path: Path) -> SplitRecord:
    """Return the record in `path`.

    Raises:
        UserError: it is missing, altered, or contradicts itself.
    """
    facts = read_typed(path, _FACTS)
    parts: dict[str, PartRecord] = {}
    for name, part in facts["parts"].items():
        labels_N = np.array(part["labels"], np.int64)
        lengths = {len(part["names"]), len(labels_N), len(part["digests"])}
        if len(lengths) > 1 or (labels_N >= len(facts["class_names"])).any():
            raise UserError(f"{path} contradicts itself in part {name}: restore it from a copy")
        parts[name] = PartRecord(names=tuple(part["names"]), labels_N=labels_N, digests=tuple(part["digests"]))
    return SplitRecord(class_names=tuple(facts["class_names"]), parts=parts, window=facts["window"])


def recorded_splits(
    source: Source, record: SplitRecord, wanted: Sequence[SplitName]
) -> tuple[Splits, tuple[str, ...]]:
    """Return surveyed splits with the images and classes that the record lists, and notes on changes of the source.

    Raises:
        UserError: a wanted image is missing or altered, or the record has no such split.
    """
    everything = joined(list(source.splits.values()))
    splits: Splits = {}
    renamed: dict[str, str] = {}
    relabelled: list[str] = []
    for name in wanted:
        if name not in record.parts:
            raise UserError(f"the run has no {name} images: {source.where} had none when it began")
        part = record.parts[name]
        index_N = _located(source.where, name, everything, part)
        found = with_survey(everything.take(index_N))
        renamed |= {old: new for old, new in zip(part.names, found.names, strict=True) if old != new}
        relabelled += _relabelled(source, found, part, record.class_names)
        splits[name] = RawSplit(
            labels_N=part.labels_N,
            names=found.names,
            open_images=found.open_images,
            patients_N=found.patients_N,
            survey=found.survey,
        )
    return splits, _changes(source.where, everything.names, record, renamed, relabelled)


def _located(where: str, name: SplitName, everything: RawSplit, part: PartRecord) -> Int64:
    """Return the index of each recorded image: of its name if the pixels are the same, else of the same pixels."""
    index_of = {image: i for i, image in enumerate(everything.names)}
    index_N = np.array([index_of.get(image, MISSING) for image in part.names], np.int64)
    named = np.flatnonzero(index_N != MISSING)
    digests = _digests(everything.take(index_N[named]))
    altered = [i for i, digest in zip(named, digests, strict=True) if digest != part.digests[i]]
    index_N[altered] = MISSING
    if (index_N == MISSING).any():
        _locate_by_pixels(everything, part, index_N)
    if missing := [part.names[i] for i in np.flatnonzero(index_N == MISSING)]:
        raise UserError(
            f"{where} has changed since the run began: of its {len(part)} {name} images {counted(missing)} are "
            f"missing or altered: restore them, or {NEW_RUN}"
        )
    return index_N


def _locate_by_pixels(everything: RawSplit, part: PartRecord, index_N: Int64) -> None:
    """Fill in the images that were renamed or moved, in place, where the source has the same pixels elsewhere."""
    others = np.setdiff1d(np.arange(len(everything)), index_N)
    others_with: defaultdict[str, list[int]] = defaultdict(list)
    # Backwards, so that pop() gives the first of identical pictures first.
    for index, digest in reversed(list(zip(others, _digests(everything.take(others)), strict=True))):
        others_with[digest].append(int(index))
    for i in np.flatnonzero(index_N == MISSING):
        if found := others_with[part.digests[i]]:
            index_N[i] = found.pop()


def _digests(split: RawSplit) -> list[str]:
    return [digest.hex() for digest in with_survey(split).surveyed.digests]


def _relabelled(source: Source, found: RawSplit, part: PartRecord, class_names: Sequence[str]) -> list[str]:
    names = source.class_names
    now = [str(label) if names is None else names[label] for label in found.labels_N]
    then = [str(label) if names is None else class_names[label] for label in part.labels_N]
    return [
        f"{image}: {old}, now {new}"
        for image, old, new in zip(part.names, then, now, strict=True)
        if old != new
    ]


def _changes(
    where: str,
    names: Sequence[str],
    record: SplitRecord,
    renamed: Mapping[str, str],
    relabelled: Sequence[str],
) -> tuple[str, ...]:
    """Return a note on what has changed in a source, if anything has.

    Args:
        where: the source.
        names: of its images, as it is now.
        record: the images of the run.
        renamed: name in the record -> name now, of the images that were looked for.
        relabelled: those of them whose class is another one now.
    """
    known = {name for part in record.parts.values() for name in part.names}
    present, again = set(names), set(renamed.values())
    changes = [
        f"{counted(images)} are {change}"
        for images, change in (
            ([name for name in names if name not in known and name not in again], "new"),
            (sorted(known - present - set(renamed)), "gone"),
            ([f"{old}, now {new}" for old, new in renamed.items() if new not in known], "renamed"),
            (relabelled, "of another class"),
        )
        if images
    ]
    if not changes:
        return ()
    return (
        f"{where} has changed since the run began: {'; '.join(changes)}; the run keeps the images and classes that it "
        f"began with; {NEW_RUN}",
    )
