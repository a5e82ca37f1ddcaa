"""Images to predict: files, folders and npz arrays, decoded on demand."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlcas.config.data import Frame
from rlcas.data.decode import IMAGE_SUFFIXES, DecodedFiles, is_image_file
from rlcas.data.files import image_files
from rlcas.data.folder_names import lying_in
from rlcas.data.masks import masks_among
from rlcas.data.npz import npz_images, npz_keys
from rlcas.data.source import Pixels, Window
from rlcas.errors import UserError

NPZ_KEYS = ("images", "test_images")
"""Names of the array of images in an npz file; the first that exists is read."""


@dataclass(frozen=True, slots=True)
class NamedImages:
    """Images, and their names in tables and messages."""

    names: Sequence[str]
    images: Sequence[Pixels] | Pixels
    masks: Sequence[str] = ()
    """Files that are left out, because they are masks of pictures beside them."""


def find_images(
    source: str | Path, window: Window | None, frame: Frame = None, *, keep_masks: bool = False
) -> NamedImages:
    """Return the images of a folder and all folders below it, of a file, or of an array in an npz file.

    Args:
        source: a path; `PATH.npz` or `npz:PATH` reads the array `images`, else `test_images`, and
            `PATH.npz:NAME` the array NAME.
        window: values shown as black and white in images of more than 8 bits, as in `dataset.window`.
        frame: which frame of a file that has several, as in `dataset.frame`.
        keep_masks: whether files count that are masks of pictures beside them, as in `dataset.masks`.

    Raises:
        UserError: the path does not exist, or has no image.
    """
    if (array := npz_array(source)) is not None:
        return _in_npz(*array)
    path = Path(str(source).removeprefix("folder:")).expanduser()
    if path.is_dir():
        return _files(path, sorted(_below(path)), window, frame, keep_masks=keep_masks)
    if not path.is_file():
        raise UserError(f"{path} is not a file or folder: name images, a folder of them, or an npz file")
    if not is_image_file(path):
        raise UserError(
            f"{path} is not an image file: use {', '.join(IMAGE_SUFFIXES)}, "
            "DICOM of any name, a folder of them, or .npz"
        )
    return _files(path, [path], window, frame, keep_masks=keep_masks)


def npz_array(source: str | Path) -> tuple[Path, str] | None:
    """Return the file and the name of the array that `source` means; None where it is no npz file.

    Raises:
        UserError: the file is missing or no npz file, or has no such array.
    """
    text = str(source).removeprefix("folder:")
    # A colon separates an array's name only after .npz: in other paths it is part of a file's name.
    file, colon, key = text.removeprefix("npz:").rpartition(":")
    has_key = bool(colon) and file.lower().endswith(".npz")
    path = Path(file if has_key else text.removeprefix("npz:")).expanduser()
    if not text.startswith("npz:") and path.suffix.lower() != ".npz":
        return None
    keys = npz_keys(path)
    wanted = (key,) if has_key else NPZ_KEYS
    found = next((name for name in wanted if name in keys), None)
    if found is None:
        raise UserError(
            f"{path} has no array {' or '.join(wanted)} (it has {', '.join(sorted(keys)) or 'none'}): "
            f"name one as {path}:ARRAY"
        )
    return path, found


def _below(folder: Path) -> list[Path]:
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir() and not _hidden(path, folder))]
    return [path for part in folders for path in image_files(part)]


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _files(
    source: Path, paths: Sequence[Path], window: Window | None, frame: Frame, *, keep_masks: bool
) -> NamedImages:
    if not paths:
        lying = lying_in(source)
        but = f" but {lying}" if lying else ""
        raise UserError(
            f"{source} has no images below it{but}: they end in {', '.join(IMAGE_SUFFIXES)}, or are DICOM"
        )
    masks = set() if keep_masks else _masks(paths)
    pictures = [path for path in paths if path not in masks]
    return NamedImages(
        [path.as_posix() for path in pictures], DecodedFiles(pictures, window, frame), sorted(map(str, masks))
    )


def _masks(paths: Sequence[Path]) -> set[Path]:
    """Return those that are masks of pictures beside them, named here or not."""
    folders = {path.parent for path in paths}
    masks = {folder: _masks_in(folder, folder.stat().st_mtime_ns) for folder in folders}
    return {path for path in paths if path.name in masks[path.parent]}


@functools.lru_cache(maxsize=16)
def _masks_in(folder: Path, changed_ns: int) -> set[str]:
    """Return the masks in a folder, remembered while it is unchanged: its files may be named one by one."""
    return masks_among([path.name for path in image_files(folder)])


def _in_npz(path: Path, array: str) -> NamedImages:
    images = npz_images(path, array)
    return NamedImages([f"{path.as_posix()}:{array}[{index}]" for index in range(len(images))], images)
