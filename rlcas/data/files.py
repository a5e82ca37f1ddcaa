"""Image files on a disk: which files are images, and a split of them that is decoded on demand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rlcas.config import DatasetConfig
from rlcas.data.decode import DecodedFiles, is_dicom, is_image_file
from rlcas.data.dicom import patient_id
from rlcas.data.source import RawSplit
from rlcas.types import Int64


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
        names=[name_below(root, path) for path in paths],
        open_images=lambda: DecodedFiles(paths, dataset.window, dataset.frame),
        read_header_ids=lambda: (patient_id(path) if is_dicom(path) else "" for path in paths),
    )


def name_below(root: Path, path: Path) -> str:
    """Return how notes and messages name a file: by its path below `root`, or whole if it is elsewhere."""
    start = f"{root.as_posix()}/"
    text = path.as_posix()
    # By text, as pathlib's own functions take seconds for half a million files.
    return text[len(start) :] if text.startswith(start) else text


def dicom_note(paths: Sequence[Path], dataset: DatasetConfig) -> tuple[str, ...]:
    """Return a note on DICOM's own windows, if any may be used."""
    if dataset.window is not None or not any(map(is_dicom, paths)):
        return ()
    return (
        "DICOM files are shown with their own window if they have one; --dataset.window=LOW,HIGH sets one for all",
    )


def image_files(folder: Path) -> list[Path]:
    """Return the images directly in `folder` in sorted order, without hidden files such as macOS's `._1.png`."""
    return [path for path in visible(folder) if is_image_file(path)]


def visible(folder: Path) -> list[Path]:
    """Return what is directly in `folder` and not hidden, in sorted order."""
    return [folder / name for name in sorted(os.listdir(folder)) if not _hidden(name)]  # noqa: PTH208


def folders_in(folder: Path) -> list[Path]:
    """Return the folders directly in `folder` that are not hidden, in sorted order."""
    # scandir knows what is a folder without asking the disk again for each of half a million files.
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not _hidden(entry.name))
    return [folder / name for name in names]


def _hidden(name: str) -> bool:
    # __MACOSX: what macOS adds to an archive, with a file ._X for every X.
    return name.startswith(".") or name == "__MACOSX"
