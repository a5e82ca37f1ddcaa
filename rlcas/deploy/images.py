"""Images to predict: files, folders and npz arrays, decoded on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlcas.data.decode import IMAGE_SUFFIXES, DecodedFiles
from rlcas.data.files import image_files
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


def find_images(source: str | Path, window: Window | None) -> NamedImages:
    """Return the images of a folder and all folders below it, of a file, or of an array in an npz file.

    Args:
        source: a path; `PATH.npz` or `npz:PATH` reads the array `images`, else `test_images`, and
            `PATH.npz:NAME` the array NAME.
        window: values shown as black and white in images of more than 8 bits, as in `dataset.window`.

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
        return _files(path, sorted(_below(path)), window)
    if not path.is_file():
        raise UserError(f"{path} is not a file or folder: name images, a folder of them, or an npz file")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(
            f"{path} is not an image file: use {', '.join(IMAGE_SUFFIXES)}, a folder of them, or .npz"
        )
    return _files(path, [path], window)


def _below(folder: Path) -> list[Path]:
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir() and not _hidden(path, folder))]
    return [path for part in folders for path in image_files(part)]


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _files(source: Path, paths: Sequence[Path], window: Window | None) -> NamedImages:
    if not paths:
        raise UserError(f"{source} has no images below it: they end in {', '.join(IMAGE_SUFFIXES)}")
    return NamedImages([path.as_posix() for path in paths], DecodedFiles(paths, window))


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
