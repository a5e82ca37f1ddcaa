"""Words by which people name splits: folders, files and cells such as `Training`, `val_set`, `TEST`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rlcas.data.source import SPLIT_ALIASES, SplitName

SPLIT_WORDS: Mapping[str, SplitName] = {
    **SPLIT_ALIASES,
    **dict.fromkeys(("training", "trains", "trn"), "train"),
    **dict.fromkeys(("validate", "validating", "vali", "dev", "development", "eval", "evaluation"), "val"),
    **dict.fromkeys(("testing", "tests", "tst"), "test"),
}
"""Word, in lower case -> split; those of `SPLIT_ALIASES` need no note."""
BESIDE = frozenset(("set", "data", "dataset", "split", "images", "image", "imgs", "folder"))
"""Words that may stand beside one of a split, as in `test_set`."""

# The longest first: training before train.
_INSIDE = re.compile(
    f"(?P<before>.*?)(?P<word>{'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})(?P<after>.*)"
)
"""A name with a word of a split in it."""


def split_of(name: str) -> SplitName | None:
    """Return the split that a folder's or cell's name says, in any case and with words such as `set`; else None."""
    words = words_of(name)
    found = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
    others = [word for word in words if word not in SPLIT_WORDS]
    return found[0] if len(found) == 1 and BESIDE.issuperset(others) else None


def splits_named_alike(names: Sequence[str]) -> dict[str, SplitName]:
    """Return name -> split for names that differ in it alone, as `seg_train` and `seg_test`, or `01_train`, `xtest`.

    Empty if none of them is of training images, or if two are of one split.
    """
    families: dict[tuple[str, str], dict[str, SplitName]] = {}
    for name in names:
        if found := _INSIDE.fullmatch(name.lower()):
            ends = _letters(found["before"]), _letters(found["after"])
            families.setdefault(ends, {})[name] = SPLIT_WORDS[found["word"]]
    whole = [family for family in families.values() if {"train"} < set(family.values())]
    return whole[0] if len(whole) == 1 and len(set(whole[0].values())) == len(whole[0]) else {}


def are_splits(names: Sequence[str]) -> bool:
    """Return whether some of the names are of splits: one of training images, and another one."""
    found = {SPLIT_WORDS[word] for name in names for word in words_of(name) if word in SPLIT_WORDS}
    return {"train"} < found or bool(splits_named_alike(names))


def _letters(text: str) -> str:
    return re.sub(r"[\W\d_]", "", text)


def words_of(name: str) -> list[str]:
    """Return the words and numbers of a name in lower case: TrainImages_part2 -> train, images, part, 2."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word.lower() for word in re.findall(r"\d+|[^\W\d_]+", spaced)]
