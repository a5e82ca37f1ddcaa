"""Words by which people name splits: folders, files and cells such as `Training`, `val_set`, `TEST`."""

from __future__ import annotations

import re
from collections.abc import Mapping

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


def split_of(name: str) -> SplitName | None:
    """Return the split that a folder's or cell's name says, in any case and with words such as `set`; else None."""
    words = words_of(name)
    found = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
    others = [word for word in words if word not in SPLIT_WORDS]
    return found[0] if len(found) == 1 and BESIDE.issuperset(others) else None


def words_of(name: str) -> list[str]:
    """Return the words and numbers of a name in lower case: TrainImages_part2 -> train, images, part, 2."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word.lower() for word in re.findall(r"\d+|[^\W\d_]+", spaced)]
