"""Many-, medium- and few-shot classes."""

from __future__ import annotations

from dataclasses import dataclass

from rlcas.config import ShotsConfig
from rlcas.errors import UserError
from rlcas.types import Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotGroups:
    """Class ids by group; all groups are empty where the rule needs counts that are not known."""

    many: tuple[int, ...]
    medium: tuple[int, ...]
    few: tuple[int, ...]


def shot_groups(config: ShotsConfig, train_counts_C: Int64, test_counts_C: Int64 | None) -> ShotGroups:
    """Return the groups by the explicit lists of `config`, or else by its thresholds on the number of images.

    Args:
        config: the settings `shots.*`; `total` counts training and test images together.
        train_counts_C: [C] real training images.
        test_counts_C: [C] test images; None while training, which sees none: under a rule that counts them
            all groups are then empty.

    Raises:
        UserError: an explicit list holds a class that the data set does not have, or two lists the same class.
    """
    num_classes = len(train_counts_C)
    if config.many is not None and config.few is not None:
        return _explicit(config.many, config.few, num_classes)
    if config.source == "train":
        counts_C = train_counts_C
    elif test_counts_C is None:
        return ShotGroups(many=(), medium=(), few=())
    else:
        counts_C = test_counts_C if config.source == "test" else train_counts_C + test_counts_C
    many = [c for c in range(num_classes) if counts_C[c] > config.many_above]
    few = [c for c in range(num_classes) if counts_C[c] < config.few_below]
    return _explicit(tuple(many), tuple(few), num_classes)


def _explicit(many: tuple[int, ...], few: tuple[int, ...], num_classes: int) -> ShotGroups:
    """Return the groups with all other classes as medium.

    Raises:
        UserError: a class is not one of the data set's, or is in both lists.
    """
    for setting, group in (("shots.many", many), ("shots.few", few)):
        if beyond := [c for c in group if c >= num_classes]:
            raise UserError(
                f"{setting} holds class {beyond[0]}, but the data set has classes 0 to {num_classes - 1}"
            )
    if both := sorted(set(many) & set(few)):
        raise UserError(f"class {both[0]} is in shots.many and in shots.few: take it out of one")
    medium = tuple(c for c in range(num_classes) if c not in many and c not in few)
    return ShotGroups(many=many, medium=medium, few=few)
