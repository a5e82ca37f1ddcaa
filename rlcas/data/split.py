"""Cutting of splits: by patient if ids exist, stratified by class, seeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlcas.config import DatasetConfig
from rlcas.data.cut_groups import cut_groups
from rlcas.data.source import RawSplit, Source, SplitName
from rlcas.errors import UserError
from rlcas.seeding import rng_for
from rlcas.types import Float64, Int64

Splits = dict[SplitName, RawSplit]
Shares = Mapping[SplitName, float]
"""Part -> its size, relative to their sum."""


def shares_to_cut(source: Source, dataset: DatasetConfig, *, wanted: Sequence[SplitName]) -> Shares:
    """Return the relative sizes of the splits that must be cut, from `all` or `train`; none if all are there.

    A source without splits is cut by `dataset.split`; otherwise `dataset.val_from_train` and
    `dataset.test_from_train` cut the missing splits.

    Raises:
        UserError: a wanted split is missing and no setting says to cut it, there is nothing to cut, or no training
            images would remain.
    """
    if "all" in source.splits:
        train, val, test = (share / sum(dataset.split) for share in dataset.split)
        return _checked(source, "all", {"train": train, "val": val, "test": test})
    can_cut = "train" in source.splits
    settings = _from_train(dataset)
    for name in wanted:
        if name not in source.splits and not (can_cut and settings.get(name)):
            raise UserError(f"{source.where} has no {name} split: {_fix(name) if can_cut else 'add it'}")
    missing = {name: share for name, share in settings.items() if share and name not in source.splits}
    if not (missing and can_cut):
        return {}
    rest = 1 - sum(missing.values())
    if rest <= 0:
        raise UserError(
            f"dataset.val_from_train {dataset.val_from_train} and test_from_train {dataset.test_from_train} "
            "leave no training images: lower them"
        )
    return _checked(source, "train", {"train": rest, **missing})


def _checked(source: Source, whole: SplitName, shares: Shares) -> Shares:
    if len(source.splits[whole]) == 0:
        raise UserError(f"{source.where} has no images to cut into {', '.join(shares)}: add some")
    return shares


def divided(
    source: Source, dataset: DatasetConfig, seed: int, *, wanted: Sequence[SplitName]
) -> tuple[Splits, tuple[str, ...]]:
    """Return the source's splits, with the missing ones cut from train, and notes on how they were cut.

    Where the split that is cut was surveyed, identical pictures stay in one part.

    Args:
        source: the data set.
        dataset: its settings.
        seed: of the cut.
        wanted: the splits that are needed.

    Raises:
        UserError: as `shares_to_cut`.
    """
    shares = shares_to_cut(source, dataset, wanted=wanted)
    if "all" in source.splits:
        return _cut(source.splits["all"], shares, source, seed)
    unused = tuple(
        f"dataset.{name}_from_train is not used: the data has a {name} split"
        for name, share in _from_train(dataset).items()
        if share and name in source.splits
    )
    if not shares:
        return dict(source.splits), unused
    cut, notes = _cut(source.splits["train"], shares, source, seed)
    return {**source.splits, **cut}, notes + unused


def _from_train(dataset: DatasetConfig) -> dict[SplitName, float | None]:
    return {"val": dataset.val_from_train, "test": dataset.test_from_train}


def _fix(name: SplitName) -> str:
    share = {"val": 0.1, "test": 0.2}[name]
    return f"cut it from train with --dataset.{name}_from_train {share}"


def _cut(split: RawSplit, shares: Shares, source: Source, seed: int) -> tuple[Splits, tuple[str, ...]]:
    group_N, notes = cut_groups(split)
    parts = cut_indices(split.labels_N, group_N, tuple(shares.values()), seed)
    level = "images" if split.patients_N is None else "patients (none is in two splits)"
    sizes = ", ".join(f"{name} {len(indices)}" for name, indices in zip(shares, parts, strict=True))
    note = f"cut from the source's {len(split)} images, by {level}, stratified by class: {sizes}"
    return {name: split.take(indices) for name, indices in zip(shares, parts, strict=True)}, (note, *notes)


def cut_indices(
    labels_N: Int64, group_N: NDArray[Any] | None, shares: Sequence[float], seed: int
) -> list[Int64]:
    """Return sorted image indices of each part; the parts share no patient and together hold every image.

    Patients are stratified by the class of most of their images (the rarer one on a tie). A class that as many
    patients have as there are parts is in every part. Without ids, each image is a patient of its own.

    Args:
        labels_N: class of each image.
        group_N: patient of each image, or another group that stays together; None: there are no ids.
        shares: size of each part, relative to their sum.
        seed: of the cut.
    """
    patient_of_N = np.arange(len(labels_N)) if group_N is None else np.unique(group_N, return_inverse=True)[1]
    has_PC = np.zeros((patient_of_N.max() + 1, labels_N.max() + 1), np.int64)
    # `has_PC[patient, label] += 1` would count only one image of each pair.
    np.add.at(has_PC, (patient_of_N, labels_N), 1)
    part_P = _stratified(_strata(has_PC), shares, seed)
    _fill_gaps(part_P, has_PC > 0, len(shares))
    return [np.flatnonzero(part_P[patient_of_N] == part).astype(np.int64) for part in range(len(shares))]


def _strata(has_PC: Int64) -> Int64:
    """Return [P]: each patient's most frequent class, the rarer of the whole set on a tie."""
    # argmax takes the first of equal columns, hence the rarest class first.
    rarest_first = np.argsort(has_PC.sum(axis=0), kind="stable")
    return rarest_first[np.argmax(has_PC[:, rarest_first], axis=1)]


def _stratified(stratum_P: Int64, shares: Sequence[float], seed: int) -> Int64:
    part_P = np.empty_like(stratum_P)
    for stratum in np.unique(stratum_P):
        # A stream for each class: another class's size does not change how this one is cut.
        members = rng_for(seed, "split", int(stratum)).permutation(np.flatnonzero(stratum_P == stratum))
        part_P[members] = np.repeat(np.arange(len(shares)), part_sizes(len(members), shares))
    return part_P


def part_sizes(total: int, shares: Sequence[float] | Float64) -> Int64:
    """Return how many of `total` each part gets, by largest remainders; at least one each if there are enough."""
    exact = total * np.asarray(shares, np.float64) / sum(shares)
    sizes = np.floor(exact).astype(np.int64)
    # Largest remainders: `sizes - exact` is minus the remainder; stable, so that ties go to the first part.
    sizes[np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]] += 1
    while total >= len(shares) and (sizes == 0).any():
        sizes[np.argmax(sizes)] -= 1
        sizes[np.argmin(sizes)] += 1
    return sizes


def _fill_gaps(part_P: Int64, has_PC: NDArray[np.bool_], num_parts: int) -> None:
    """Move patients, in place, so that a class of patients with several classes is in every part too."""
    for class_id in np.argsort(has_PC.sum(axis=0), kind="stable"):
        holders = np.flatnonzero(has_PC[:, class_id])
        for part in range(num_parts):
            if len(holders) >= num_parts and not (part_P[holders] == part).any():
                spare = [patient for patient in holders if _is_spare(patient, part_P, has_PC)]
                # Empty if every patient is the last one of some class in its part: then nobody moves.
                part_P[spare[:1]] = part


def _is_spare(patient: np.intp, part_P: Int64, has_PC: NDArray[np.bool_]) -> bool:
    """Return whether the patient's part has another patient with each of its classes."""
    beside = part_P == part_P[patient]
    beside[patient] = False
    return bool(has_PC[beside][:, has_PC[patient]].any(axis=0).all())
