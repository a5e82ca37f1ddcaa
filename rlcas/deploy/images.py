"""Images to predict: files, folders and npz arrays, decoded on demand."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlcas.data.decode import IMAGE_SUFFIXES, DecodedFiles
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


def find_images(source: str | Path, window: Window | None, *, keep_masks: bool = False) -> NamedImages:
    """Return the images of a folder and all folders below it, of a file, or of an array in an npz file.

    Args:
        source: a path; `PATH.npz` or `npz:PATH` reads the array `images`, else `test_images`, and
            `PATH.npz:NAME` the array NAME.
        window: values shown as black and white in images of more than 8 bits, as in `dataset.window`.
        keep_masks: whether files count that are masks of pictures beside them, as in `dataset.masks`.

    Raises:
        UserError: the path does not exist, or has no image.
    """
    text = str(source).removeprefix("folder:")
    # A colon separates an array's name only after .npz: in other paths it is part of a file's name.
    file, colon, key = text.removeprefix("npz:").rpartition(":")
    path = Path(file if colon and file.lower().endswith(".npz") else text.removeprefix("npz:")).expanduser()
    if text.startswith("npz:") or path.suffix.lower() == ".npz":
        return _in_npz(path, key if colon and file.lower().endswith(".npz") else None)
    if path.is_dir():
        return _files(path, sorted(_below(path)), window, keep_masks)
    if not path.is_file():
        raise UserError(f"{path} is not a file or folder: name images, a folder of them, or an npz file")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(
            f"{path} is not an image file: use {', '.join(IMAGE_SUFFIXES)}, a folder of them, or .npz"
        )
    return _files(path, [path], window, keep_masks)


def _below(folder: Path) -> list[Path]:
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir() and not _hidden(path, folder))]
    return [path for part in folders for path in image_files(part)]


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _files(source: Path, paths: Sequence[Path], window: Window | None, keep_masks: bool) -> NamedImages:
    if not paths:
        lying = lying_in(source)
        but = f" but {lying}" if lying else ""
        raise UserError(f"{source} has no images below it{but}: they end in {', '.join(IMAGE_SUFFIXES)}")
    masks = set() if keep_masks else _masks(paths)
    pictures = [path for path in paths if path not in masks]
    return NamedImages(
        [path.as_posix() for path in pictures], DecodedFiles(pictures, window), sorted(map(str, masks))
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


def _in_npz(path: Path, key: str | None) -> NamedImages:
    keys = npz_keys(path)
    wanted = NPZ_KEYS if key is None else (key,)
    found = next((name for name in wanted if name in keys), None)
    if found is None:
        raise UserError(
            f"{path} has no array {' or '.join(wanted)} (it has {', '.join(sorted(keys)) or 'none'}): "
            f"name one as {path}:ARRAY"
        )
    images = npz_images(path, found)
    return NamedImages([f"{path.as_posix()}:{found}[{index}]" for index in range(len(images))], images)
