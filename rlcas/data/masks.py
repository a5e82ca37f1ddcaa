"""Masks that lie beside the pictures that they belong to, as `X_mask.png` beside `X.png`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlcas.data.source import counted
from rlcas.data.words import words_of

_AFTER = re.compile(
    r"[ _.-](?:(?!(?:no|not|with|without)[ _.-])[a-z]+[ _.-])?"
    r"(?:(?:mask|tumou?r|segmentation|superpixel).*|(?:seg|segm|gt|ground[ _-]?truth|annotation|annotated|label|roi"
    r"|contour|outline|overlay|lesion)s?[ _.-]?\(?\d*\)?|other\d+)$"
)
"""What a mask's name has after the picture's: `_mask`, `_lesion_mask`, `_mask_1`, `_tumor`, `_other1`, `_overlay`."""
_BEFORE = re.compile(r"(?:masks?|segmentations?|seg|gt)[ _.-](?P<rest>.+)$")
"""What it has before it: `mask_0001` beside `0001` or `image_0001`."""
MASK_WORDS = frozenset(
    [
        *(
            "mask",
            "masks",
            "seg",
            "segs",
            "segm",
            "segmentation",
            "segmentations",
            "gt",
            "groundtruth",
            "truth",
        ),
        *(
            "annotation",
            "annotations",
            "annotated",
            "label",
            "labels",
            "contour",
            "contours",
            "overlay",
            "overlays",
        ),
    ]
)
"""Words of folders of masks, beside one of pictures."""
NEGATIONS = frozenset(("no", "not", "non", "with", "without"))
"""Words of classes that say whether somebody wears a mask."""


def masks_among(names: Sequence[str]) -> set[str]:
    """Return those of the file names of a folder that are masks of another one of them, whatever their suffixes."""
    stems = {name: name.rpartition(".")[0].lower() or name.lower() for name in names}
    known = set(stems.values())
    # `x.jpg_mask.png` names its picture whole.
    whole = {name.lower() for name in names}
    pictures = {stem for stem in known if not _AFTER.search(stem) and not _BEFORE.match(stem)}
    # `bus_0001` -> `0001`, beside which lies `mask_0001`.
    ends = {stem.partition(separator)[2] for stem in pictures for separator in "_-" if separator in stem}
    return {
        name
        for name, stem in stems.items()
        if any(picture in known or picture in whole for picture in _pictures_of(stem))
        or ((before := _BEFORE.match(stem)) and before["rest"] in known | ends)
    }


def mask_folders(names: Sequence[str]) -> list[str]:
    """Return those of the names of folders side by side that say that they have masks of the pictures in others.

    As `masks` beside `images`, or `benign GT` beside `benign`; none if all of them do, or if `no_mask` is a class.
    """
    words = {name: set(words_of(name)) for name in names}
    found = [name for name in names if words[name] & MASK_WORDS]
    negated = any(words[name] & NEGATIONS for name in found)
    return [] if negated or len(found) == len(names) else found


def mask_note(masks: Sequence[str]) -> tuple[str, ...]:
    """Return a note on the masks that are left out."""
    if not masks:
        return ()
    return (
        f"left out, because they are masks of pictures beside them: {counted(masks)}; --dataset.masks keep "
        "takes them for images",
    )


def without_masks(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the pictures and the masks among files of any folders, each searched for beside the others."""
    masks = masks_below([path.as_posix() for path in paths])
    pictures = [path for path in paths if path.as_posix() not in masks]
    return pictures, [path for path in paths if path.as_posix() in masks]


def masks_below(names: Sequence[str]) -> set[str]:
    """Return those that are masks of pictures beside them, of names with folders, as `a/X_mask.png`."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        folder, slash, file = name.rpartition("/")
        by_folder.setdefault(folder + slash, []).append(file)
    return {f"{folder}{file}" for folder, files in by_folder.items() for file in masks_among(files)}


def _pictures_of(stem: str) -> Iterator[str]:
    """Yield what the picture's name would be for each way to read the stem as a mask's name."""
    for start in range(1, len(stem)):
        if stem[start] in " _.-" and _AFTER.match(stem, start):
            yield stem[:start]
