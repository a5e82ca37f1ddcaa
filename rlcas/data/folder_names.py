"""Folders that are no classes, such as `Images` and `Masks`, and what lies where no image was read."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rlcas import settings
from rlcas.config import DatasetConfig
from rlcas.data.decode import IMAGE_SUFFIXES, is_image_file
from rlcas.data.files import folders_in, image_files, visible
from rlcas.data.masks import MASK_WORDS, mask_folders
from rlcas.data.source import NUM_SHOWN, counted
from rlcas.data.suggest import table_command, table_of
from rlcas.data.words import SPLIT_WORDS, are_splits, split_of, words_of
from rlcas.errors import UserError
from rlcas.settings.yaml_file import MAX_BYTES

PICTURES = frozenset(
    [
        *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "input", "inputs"),
        *("mask", "masks", "data", "dataset", "png", "jpg", "jpeg", "tif", "tiff", "dicom", "dcm"),
    ]
)
"""Kinds of files; a number beside one is that of a part, as in images_001."""
KINDS = PICTURES | frozenset(
    [
        *("label", "labels", "annotation", "annotations", "segmentation", "segmentations", "gt", "groundtruth"),
        *("ground", "truth", "set", "original", "originals", "raw", "all"),
    ]
)
"""Words that say what kind of files a folder has, and not of which class they are."""
PARTS = re.compile(
    r"(?<![a-z])(?:part|fold|batch|chunk|shard|patient|subject|case|study|series|scan|visit|site|hospital|cent(?:er|re))"
    r"[\W_]*\d+",
    re.I,
)
"""A numbered piece of a set, or whose images it has."""
NUMBERED = re.compile(
    r"(?:p|pt|pat|pid|s|sub|subj|id|person|participant|volunteer|animal|mouse|set|vol|volume|session|img|device|group)"
    r"[\W_]*\d+",
    re.I,
)
"""Names that may be classes or not: p001, set1."""
MASK_KINDS = MASK_WORDS | {"ground"}
OWN_FILES = (settings.CONFIG_FILE, settings.SWEEP_CONFIG_FILE, settings.COMPARE_CONFIG_FILE)
WANTED = "arrange it as CLASS/*.png or train/CLASS/*.png"
READ = f"read are files that end in {', '.join(IMAGE_SUFFIXES)}"


def check_are_classes(root: Path, names: Sequence[str], dataset: DatasetConfig) -> tuple[str, ...]:
    """Check that the folders' names may be classes; return a note on those among them that are hardly so.

    Raises:
        UserError: all of them only say what kind, part or split of a set they have, as Images and Masks do; or one is
            of the masks of another one, as benign_masks beside benign.
    """
    rests = [_class_words(name) for name in names]
    masks = mask_folders(names)
    pictures = [rest for name, rest in zip(names, rests, strict=True) if name not in masks]
    no_words = all(rest is not None for rest in rests) and len(set(rests)) == 1
    if no_words or (masks and all(map(_of_pictures, names, rests)) and len(set(pictures)) == 1):
        raise UserError(
            f"{root} has the folders {', '.join(names)}, which are no classes: {table_command(root)}; or {WANTED}"
        )
    if dataset.masks == "leave_out":
        _check_no_masks(root, names, masks)
    return (*_kinds_note(names, rests, masks), *_numbered_note(names))


def _of_pictures(name: str, rest: tuple[str, ...] | None) -> bool:
    """Return whether a folder's name says that it has pictures or masks."""
    return rest is not None and not KINDS.isdisjoint(words_of(name))


def _check_no_masks(root: Path, names: Sequence[str], masks: Sequence[str]) -> None:
    named = {tuple(words_of(name)): name for name in names if name not in masks}
    pairs = {
        name: named.get(tuple(word for word in words_of(name) if word not in MASK_KINDS)) for name in masks
    }
    if found := [name for name, picture in pairs.items() if picture]:
        raise UserError(
            f"{root} has {found[0]} beside {pairs[found[0]]}, which seem to be its masks: leave them out with "
            f"--dataset.drop {shlex.quote(','.join(found))}, or take them for classes with --dataset.masks keep"
        )


def _kinds_note(
    names: Sequence[str], rests: Sequence[tuple[str, ...] | None], masks: Sequence[str]
) -> tuple[str, ...]:
    doubtful = [name for name, rest in zip(names, rests, strict=True) if rest == () or name in masks]
    if not doubtful:
        return ()
    return (
        f"classes whose names say what kind of files they have: {counted(doubtful)}; --dataset.drop "
        f"{shlex.quote(','.join(doubtful))} leaves them out",
    )


def _numbered_note(names: Sequence[str]) -> tuple[str, ...]:
    if len(names) < 2 or not all(map(NUMBERED.fullmatch, names)):
        return ()
    return (
        f"classes whose names may be of patients or parts of a set: {counted(names)}; if so, {WANTED}, or "
        "write a table of path, label and patient_id",
    )


def nothing_read(root: Path, parts: Iterable[Path], levels: Sequence[str]) -> UserError:
    """Return the error for a folder without class folders: what lies there, and what is wanted.

    Args:
        root: the folder.
        parts: the folders of its splits, or itself.
        levels: `dataset.levels`.
    """
    part = next((part for part in parts if visible(part)), root)
    lying = f" but {lying_in(part)}" if visible(part) else ""
    below = "" if len(levels) == 1 else f" (dataset.levels {','.join(levels)})"
    fix = f"{WANTED}; {READ}"
    if image_files(part):
        fix = f"{WANTED}, or, if their classes are in a table, {table_command(root)}"
    return UserError(f"{part} has no class folders{below}{lying}: {fix}")


def has_kinds(folder: Path) -> bool:
    """Return whether folders in `folder` are of kinds of files, as images and masks are."""
    return any(KINDS.issuperset(words_of(child.name)) and image_files(child) for child in folders_in(folder))


def no_images(root: Path, folder: Path) -> UserError | None:
    """Return the error for a class folder that has files or folders, but no images; None if it is empty.

    Args:
        root: the folder of the data set.
        folder: that of the class.
    """
    below = folders_in(folder)
    lying = lying_in(folder)
    if not lying:
        return None
    beside = [path.name for path in folders_in(folder.parent)]
    masks = mask_folders(beside)
    pictures = [name for name in beside if name not in masks]
    if below and all(split_of(child.name) for child in below):
        fix = "splits are wanted above the classes, train/CLASS/*.png"
    elif are_splits(beside):
        fix = f"if {' and '.join(beside[:NUM_SHOWN])} are splits, rename them to train and test"
    elif masks and all(_class_words(name) == () for name in pictures):
        # Below a split, no one folder has all pictures.
        alone = folder.parent == root and len(pictures) == 1
        all_levels = "--dataset.levels any,class reads its classes, without masks"
        fix = f"--data folder:{root / pictures[0]} reads its classes" if alone else all_levels
    elif has_kinds(folder):
        fix = "--dataset.levels class,any reads them"
    elif any(image_files(child) for child in below):
        name = below[0].name
        fix = f"if {name} is a patient, --dataset.levels class,patient; if it is a class, --dataset.levels any,class"
    else:
        fix = f"{READ}, so save them as such, or remove the folder"
    return UserError(f"class folder {folder} has no images but {lying}: {fix}")


def lying_in(folder: Path) -> str:
    """Return in words what is in a folder: `3 .webp files, 2 folders (p1, p2)`; empty if nothing is."""
    found = visible(folder)
    folders = [path.name for path in found if path.is_dir()]
    suffixes = Counter(
        f"{path.suffix.lower()} files" if path.suffix else "files without suffix"
        for path in found
        if path.is_file()
    )
    images = sum(is_image_file(path) for path in found)
    listed = [f"{count} {kind}" for kind, count in suffixes.most_common(3)]
    if images and images == sum(suffixes.values()):
        listed = [f"{images} images"]
    return ", ".join([*listed, *([f"folders: {counted(folders)}"] if folders else [])])


def table_note(root: Path) -> tuple[str, ...]:
    """Return a note if a table beside the class folders has labels of their images."""
    flags = table_of(root)
    return (
        (f"a table beside the folders has labels too, which are not used: {flags} reads them",) if flags else ()
    )


def is_written_by_rlcas(folder: Path, levels: int = 2) -> bool:
    """Return whether a folder is that of a run, sweep or comparison, or has such folders and no images."""
    if any(_is_of_rlcas(folder / name) for name in OWN_FILES):
        return True
    below = folders_in(folder) if levels else []
    return any(is_written_by_rlcas(child, levels - 1) for child in below) and not image_files(folder)


def _is_of_rlcas(path: Path) -> bool:
    """Return whether this is a settings file that rlcas wrote, and not another program's config.yaml."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"\nsampler:" in file.read(MAX_BYTES)


def _class_words(name: str) -> tuple[str, ...] | None:
    """Return the words that may name a class; None if no other words are there."""
    words = words_of(PARTS.sub(" ", name))
    rest = [word for word in words if word not in KINDS and word not in SPLIT_WORDS]
    if PICTURES.intersection(words):
        rest = [word for word in rest if not word.isdecimal()]
    return None if rest == words_of(name) else tuple(rest)
