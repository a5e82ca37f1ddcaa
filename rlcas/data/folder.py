"""`folder:PATH`: a folder for each class, below train, val and test or without splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rlcas.config import DatasetConfig
from rlcas.config.data import Level
from rlcas.data.classes import in_order
from rlcas.data.decode import is_image_file
from rlcas.data.files import dicom_note, files_split, folders_in, image_files, name_below, visible
from rlcas.data.folder_names import (
    check_are_classes,
    has_kinds,
    is_written_by_rlcas,
    no_images,
    nothing_read,
    table_note,
)
from rlcas.data.groups import named_patients, patients_note
from rlcas.data.masks import mask_folders, mask_note, masks_among
from rlcas.data.source import NUM_SHOWN, SPLIT_ALIASES, RawSplit, Source, SplitName, counted
from rlcas.data.words import are_splits, split_of, splits_named_alike
from rlcas.errors import UserError

Splits = Mapping[SplitName, Path]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A folder that has images of one class."""

    folder: Path
    class_name: str
    patient: str | None
    images: Sequence[Path]
    masks: Sequence[Path]
    others: Sequence[Path]
    """What is neither an image nor hidden."""


def open_folder(root: Path, dataset: DatasetConfig) -> Source:
    """Return the images below `root`: `CLASS/FILE`, or the same below a folder for each split.

    Everything is read in sorted order; hidden files are skipped, and notes name what is left out: files of other
    kinds, masks beside their pictures, folders that rlcas wrote.

    Raises:
        UserError: the folder does not exist, has no class folder or no images in one, has folders that are no
            classes, or has one split under two names; the message says what lies there and what is wanted.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: check the path after folder:")
    own = [path for path in folders_in(root) if is_written_by_rlcas(path)]
    split_folders = _split_folders(root, own)
    parts: Splits = split_folders or {"all": root}
    leaves = {split: list(_leaves(part, dataset, own)) for split, part in parts.items()}
    found = [leaf for part in leaves.values() for leaf in part]
    if not found:
        raise nothing_read(root, parts.values(), dataset.levels)
    # From all splits together: a class has the same number in each, even if one lacks it.
    class_names = in_order(leaf.class_name for leaf in found)
    _check_have_images(root, parts, leaves, dataset)
    doubtful = check_are_classes(root, [name for name in class_names if name not in dataset.drop], dataset)
    splits = {split: _open_split(root, part, class_names, dataset) for split, part in leaves.items()}
    masks = [path for leaf in found for path in leaf.masks]
    return Source(
        name=root.resolve().name,
        where=str(root),
        splits=splits,
        class_names=class_names,
        notes=(
            *_split_notes(root, split_folders, own),
            *_left_out(root, found),
            *doubtful,
            *table_note(root),
            *mask_note([name_below(root, path) for path in [*_masks_beside(found, dataset), *masks]]),
            *patients_note(splits),
            *dicom_note([path for leaf in found for path in leaf.images], dataset),
        ),
    )


def _split_folders(root: Path, own: Sequence[Path]) -> Splits:
    found: dict[SplitName, Path] = {}
    folders = folders_in(root)
    for folder in folders:
        split = split_of(folder.name)
        if split is None or folder in own:
            continue
        if split in found:
            raise UserError(
                f"{root} has {found[split].name} and {folder.name}, which are one split, {split}: join them"
            )
        found[split] = folder
    if not found:
        # Folders of images may be parts of a competition's set, whose classes are in a table.
        outer = [folder.name for folder in folders if folders_in(folder) and not image_files(folder)]
        found = {split: root / name for name, split in splits_named_alike(outer).items()}
    # As people think of them: the order of the words in the table of aliases.
    return {split: found[split] for split in dict.fromkeys(SPLIT_ALIASES.values()) if split in found}


def _leaves(part: Path, dataset: DatasetConfig, own: Sequence[Path]) -> Iterator[Leaf]:
    """Yield the folders with images, which are `dataset.levels` below `part`."""
    found: list[tuple[Path, dict[str, str]]] = [(part, {})]
    for level in dataset.levels:
        found = [
            (child, {**names, level: child.name})
            for folder, names in found
            for child in _pictures_below(folder, level, dataset, own)
        ]
    for folder, names in found:
        yield _leaf(folder, names, dataset)


def _pictures_below(folder: Path, level: Level, dataset: DatasetConfig, own: Sequence[Path]) -> list[Path]:
    """Return the folders in `folder`, without those of masks that lie beside folders of pictures.

    Raises:
        UserError: they are splits, at a level of no meaning.
    """
    below = [child for child in folders_in(folder) if child not in own]
    if level == "any" and are_splits([child.name for child in below]):
        raise UserError(
            f"{folder} has {', '.join(child.name for child in below[:NUM_SHOWN])}, which dataset.levels would join: "
            "splits are wanted above the classes in the folder that is read, train/CLASS/*.png and test/CLASS/*.png"
        )
    masks = _mask_folders(below) if level != "class" and dataset.masks == "leave_out" else []
    return [child for child in below if child not in masks]


def _mask_folders(beside: Sequence[Path]) -> list[Path]:
    """Return the folders that have masks of the pictures in those beside them."""
    masks = mask_folders([folder.name for folder in beside])
    return [folder for folder in beside if folder.name in masks]


def _masks_beside(leaves: Sequence[Leaf], dataset: DatasetConfig) -> list[Path]:
    """Return the folders of masks that were left out, beside those on the way to the leaves."""
    if dataset.masks == "keep":
        return []
    # From the images up to the split's folder: one name for each level that may have such folders.
    read = {folder for leaf in leaves for folder in [leaf.folder, *leaf.folder.parents][: len(dataset.levels)]}
    above = dict.fromkeys(folder.parent for folder in sorted(read))
    return [child for folder in above for child in _mask_folders(folders_in(folder)) if child not in read]


def _leaf(folder: Path, names: Mapping[str, str], dataset: DatasetConfig) -> Leaf:
    paths = visible(folder)
    images = [path for path in paths if is_image_file(path)]
    left_out = masks_among([path.name for path in images]) if dataset.masks == "leave_out" else set()
    known = set(images)
    return Leaf(
        folder=folder,
        class_name=names["class"],
        patient=names.get("patient"),
        images=[path for path in images if path.name not in left_out],
        masks=[path for path in images if path.name in left_out],
        others=[path for path in paths if path not in known],
    )


def _check_have_images(
    root: Path, parts: Splits, leaves: Mapping[SplitName, Sequence[Leaf]], dataset: DatasetConfig
) -> None:
    for split, part in parts.items():
        # As the test images of a competition, which have no classes; an empty folder is a split without images.
        if not leaves[split] and visible(part):
            raise nothing_read(root, [part], dataset.levels)
    every = [leaf for part in leaves.values() for leaf in part if leaf.class_name not in dataset.drop]
    with_images = {leaf.class_name for leaf in every if leaf.images}
    for leaf in every:
        if leaf.class_name not in with_images and (error := no_images(root, leaf.folder)):
            if has_kinds(leaf.folder):
                check_are_classes(root, in_order(leaf.class_name for leaf in every), dataset)
            raise error


def _open_split(
    root: Path, leaves: Sequence[Leaf], class_names: Sequence[str], dataset: DatasetConfig
) -> RawSplit:
    id_of = {name: class_id for class_id, name in enumerate(class_names)}
    # Class by class: folders of a class may be apart, below different others.
    in_turn = sorted(leaves, key=lambda leaf: id_of[leaf.class_name])
    paths = [path for leaf in in_turn for path in leaf.images]
    labels_N = np.array([id_of[leaf.class_name] for leaf in in_turn for _ in leaf.images], np.int64)
    split = files_split(root, paths, labels_N, dataset)
    if "patient" in dataset.levels:
        return replace(
            split, patients_N=np.array([leaf.patient for leaf in in_turn for _ in leaf.images], np.str_)
        )
    return named_patients(split, dataset)


def _split_notes(root: Path, splits: Splits, own: Sequence[Path]) -> tuple[str, ...]:
    unusual = [f"{path.name} as {split}" for split, path in splits.items() if path.name not in SPLIT_ALIASES]
    beside = [path.name for path in folders_in(root) if path not in own and path not in splits.values()]
    notes = [f"folders are read as splits: {', '.join(unusual)}"] if unusual else []
    if own:
        notes.append(f"left out, because rlcas wrote it: {', '.join(path.name for path in own)}")
    if splits and beside:
        notes.append(f"left out, because they are beside the splits: {counted(beside)}")
    return tuple(notes)


def _left_out(root: Path, leaves: Sequence[Leaf]) -> tuple[str, ...]:
    others = [name_below(root, path) for leaf in leaves for path in leaf.others]
    return (f"left out, because they are not image files: {counted(others)}",) if others else ()
