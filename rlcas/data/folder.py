"""`folder:PATH`: a folder for each class, below train, val and test or without splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlcas.config import DatasetConfig
from rlcas.data.decode import DecodedFiles, is_dicom, is_image_file
from rlcas.data.source import SPLIT_ALIASES, RawSplit, Source, SplitName, counted
from rlcas.errors import UserError
from rlcas.types import Int64


def open_folder(root: Path, dataset: DatasetConfig) -> Source:
    """Return the images below `root`: `train|val|valid|validation|test/CLASS/FILE`, or `CLASS/FILE` alone.

    Everything is read in sorted order; hidden files are skipped, and a note names files of other kinds.

    Raises:
        UserError: the folder does not exist, has no class folder, or has one split under two names.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: check the path after folder:")
    split_folders = _split_folders(root) or {"all": root}
    # From all splits together: a class has the same number in each, even if one lacks it.
    class_names = tuple(sorted({folder.name for part in split_folders.values() for folder in _folders(part)}))
    if not class_names:
        raise UserError(f"{root} has no class folders: arrange it as CLASS/*.png or train/CLASS/*.png")
    splits = {name: _open_split(root, part, class_names, dataset) for name, part in split_folders.items()}
    paths = [root / name for split in splits.values() for name in split.names]
    return Source(
        name=root.resolve().name,
        where=str(root),
        splits=splits,
        class_names=class_names,
        notes=_left_out(root, split_folders) + dicom_note(paths, dataset),
    )


def files_split(root: Path, paths: Sequence[Path], labels_N: Int64, dataset: DatasetConfig) -> RawSplit:
    """Return a split of image files, named by their paths below `root`.

    Args:
        root: the folder of the data set.
        paths: the N files.
        labels_N: their classes.
        dataset: `window`, the values shown as black and white, and `frame`, which one of a file that has several.
    """
    return RawSplit(
        labels_N=labels_N,
        names=[path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path) for path in paths],
        open_images=lambda: DecodedFiles(paths, dataset.window, dataset.frame),
    )


def dicom_note(paths: Sequence[Path], dataset: DatasetConfig) -> tuple[str, ...]:
    """Return a note on DICOM's own windows, if any may be used."""
    if dataset.window is not None or not any(map(is_dicom, paths)):
        return ()
    return (
        "DICOM files are shown with their own window if they have one; --dataset.window=LOW,HIGH sets one for all",
    )


def image_files(folder: Path) -> list[Path]:
    """Return the images directly in `folder` in sorted order, without hidden files such as macOS's `._1.png`."""
    return [path for path in _visible(folder) if is_image_file(path)]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _split_folders(root: Path) -> dict[SplitName, Path]:
    found: dict[SplitName, Path] = {}
    for alias, split in SPLIT_ALIASES.items():
        folder = root / alias
        if folder.is_dir():
            if split in found:
                raise UserError(f"{root} has {found[split].name} and {alias}, which are one split: join them")
            found[split] = folder
    return found


def _open_split(root: Path, part: Path, class_names: Sequence[str], dataset: DatasetConfig) -> RawSplit:
    found = [
        (path, class_id)
        for class_id, name in enumerate(class_names)
        if (part / name).is_dir()
        for path in image_files(part / name)
    ]
    labels_N = np.array([class_id for _, class_id in found], np.int64)
    return files_split(root, [path for path, _ in found], labels_N, dataset)


def _left_out(root: Path, split_folders: dict[SplitName, Path]) -> tuple[str, ...]:
    others = [
        path.relative_to(root).as_posix()
        for part in split_folders.values()
        for folder in _folders(part)
        for path in _visible(folder)
        if not is_image_file(path)
    ]
    return (f"left out, because they are not image files: {counted(others)}",) if others else ()
