"""A pool of synthetic images on disk: per-class memory-mapped shards, and a manifest that is written last.

pool/class-000/shard-000.npy   uint8 [n, channels, H, W]
pool/plan.json                 what the images come from; written first
pool/manifest.json             the same, with every shard's count and sha256; a pool without it is unfinished
pool/copies.json               which images are copies of training images, once the pool has been judged
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from rlcas.data.decode import IMAGE_SUFFIXES, DecodedFiles
from rlcas.data.folder import image_files
from rlcas.data.pixels import Layout, convert
from rlcas.errors import UserError
from rlcas.files import jsonable, replacing, sha256_of, write_json
from rlcas.types import Int64, Uint8

SCHEMA_VERSION = 1
PLAN_FILE = "plan.json"
MANIFEST_FILE = "manifest.json"
COPIES_FILE = "copies.json"
IMPORTED_SHARD_IMAGES = 256
SIXTEEN_BITS = (0.0, 65535.0)
REMAKE = "delete the pool and make it again"
REJUDGE = "delete it, and the pool is judged again"


class SyntheticPool:
    """The images of a finished pool, read through memory maps (a `rlcas.types.SyntheticSource`).

    Opening it checks that every shard has the size and sha256 that the manifest gives. Images that
    `mark_copies` marked are left out, and the others numbered without a gap.

    Args:
        folder: the pool's.
        with_copies: read the marked images too.
        marks_folder: where the marks lie. None: in the pool's folder.

    Attributes:
        manifest: the manifest's content.
        class_names: [C] names.
        image_shape_CHW: (channels, H, W).
        copies_C: [C] arrays of the numbers of the marked images.

    Raises:
        UserError: the manifest or a shard is missing, altered, or of another version; or the marks are not
            this pool's.
    """

    def __init__(self, folder: Path, *, with_copies: bool = False, marks_folder: Path | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        self.class_names: tuple[str, ...] = tuple(self.manifest["class_names"])
        self.image_shape_CHW: tuple[int, int, int] = tuple(self.manifest["image_shape_CHW"])
        self._shards_C = [
            [self._open(shard) for shard in self.manifest["shards"] if shard["class_id"] == class_id]
            for class_id in range(len(self.class_names))
        ]
        numbers_C = [np.arange(sum(map(len, shards))) for shards in self._shards_C]
        self.copies_C = _read_copies(self.folder, marks_folder or self.folder, list(map(len, numbers_C)))
        self._kept_C = numbers_C if with_copies else list(map(np.delete, numbers_C, self.copies_C))

    @property
    def class_sizes_C(self) -> Int64:
        """Return [C] int64: images there are of each class."""
        return np.array([len(kept) for kept in self._kept_C], dtype=np.int64)

    def images(self, class_id: int, indices: Int64) -> Uint8:
        """Return [len(indices), channels, H, W] uint8: images `indices` of the class, in that order."""
        images = np.empty((len(indices), *self.image_shape_CHW), dtype=np.uint8)
        shards, kept, indices = self._shards_C[class_id], self._kept_C[class_id], np.asarray(indices)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(kept):
            raise IndexError(f"class {class_id} has images 0 to {len(kept) - 1}, not {indices.tolist()}")
        indices, ends = kept[indices], np.cumsum([len(shard) for shard in shards])
        for shard, end in zip(shards, ends, strict=True):
            here = (indices >= end - len(shard)) & (indices < end)
            images[here] = shard[indices[here] - (end - len(shard))]
        return images

    def require(self, class_names: Sequence[str], image_shape_CHW: tuple[int, int, int]) -> None:
        """Check that the pool was made for these classes and this shape.

        Raises:
            UserError: it was not.
        """
        for what, own, wanted in (
            ("classes", list(self.class_names), list(class_names)),
            ("images of shape", list(self.image_shape_CHW), list(image_shape_CHW)),
        ):
            if own != wanted:
                raise UserError(
                    f"pool {self.folder} has {what} {own}, the data set {wanted}: make a pool for it"
                )

    def _open(self, shard: dict[str, Any]) -> Uint8:
        path = self.folder / shard["file"]
        if not path.is_file():
            raise UserError(f"{path} is missing, though the pool's manifest lists it: {REMAKE}")
        status = path.stat()
        if _sha256_once(path, status.st_size, status.st_mtime_ns) != shard["sha256"]:
            raise UserError(f"{path} is not the file that the pool's manifest lists (sha256 differs): {REMAKE}")
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        if images.shape != (shard["count"], *self.image_shape_CHW) or images.dtype != np.uint8:
            raise UserError(
                f"{path} holds {images.dtype} {list(images.shape)}, but the pool's manifest says "
                f"{shard['count']} uint8 images of {list(self.image_shape_CHW)}: {REMAKE}"
            )
        return images


def mark_copies(
    pool_folder: Path,
    copies_by_class: Sequence[Int64],
    facts: Mapping[str, Any],
    *,
    marks_folder: Path | None = None,
) -> None:
    """Write copies.json: the images that `SyntheticPool` leaves out of this pool from now on.

    Args:
        pool_folder: a finished pool; the marks hold for this manifest alone.
        copies_by_class: [C] arrays of image numbers.
        facts: how the copies were found.
        marks_folder: where to write. None: into the pool's folder.
    """
    marks = {
        "schema_version": SCHEMA_VERSION,
        "manifest_sha256": sha256_of(pool_folder / MANIFEST_FILE),
        "copies": list(copies_by_class),
        **facts,
    }
    write_json((marks_folder or pool_folder) / COPIES_FILE, marks)


class PoolWriter:
    """Writes a pool shard by shard; one that was interrupted is continued where its plan is the same.

    Raises:
        UserError: the folder holds a pool of another plan.
    """

    def __init__(
        self,
        folder: Path,
        *,
        class_names: Sequence[str],
        image_shape_CHW: tuple[int, ...],
        shard_images: int,
        source: dict[str, Any],
    ) -> None:
        self._folder = Path(folder)
        self._shard_images = shard_images
        self._plan = jsonable(
            {
                "schema_version": SCHEMA_VERSION,
                "class_names": list(class_names),
                "image_shape_CHW": list(image_shape_CHW),
                "dtype": "uint8",
                "shard_images": shard_images,
                "source": source,
            }
        )
        plan_file = self._folder / PLAN_FILE
        if not plan_file.exists():
            write_json(plan_file, self._plan)
        elif json.loads(plan_file.read_text(encoding="utf-8")) != self._plan:
            raise UserError(
                f"{self._folder} holds a pool of another origin or of other settings: name another folder, "
                "or delete this one"
            )

    def missing(self, per_class_C: Sequence[int]) -> list[tuple[int, range]]:
        """Return (class, span of image numbers) of each shard that is yet to be written."""
        return [
            (class_id, span)
            for class_id, span in self._spans(per_class_C)
            if _num_images(self._path(class_id, span)) != len(span)
        ]

    def write(self, class_id: int, span: range, images_NCHW: Uint8) -> None:
        """Write one shard, whole or not at all."""
        assert images_NCHW.dtype == np.uint8 and len(images_NCHW) == len(span)
        for stale in (MANIFEST_FILE, COPIES_FILE):
            (self._folder / stale).unlink(missing_ok=True)
        with replacing(self._path(class_id, span)) as temporary, temporary.open("wb") as file:
            np.save(file, images_NCHW, allow_pickle=False)

    def commit(self, per_class_C: Sequence[int]) -> None:
        """Write the manifest: from here on the folder is a pool."""
        shards = [
            {
                "class_id": class_id,
                "file": self._path(class_id, span).relative_to(self._folder).as_posix(),
                "count": len(span),
                "sha256": sha256_of(self._path(class_id, span)),
            }
            for class_id, span in self._spans(per_class_C)
        ]
        write_json(self._folder / MANIFEST_FILE, {**self._plan, "shards": shards})

    def _spans(self, per_class_C: Sequence[int]) -> list[tuple[int, range]]:
        step = self._shard_images
        return [
            (class_id, range(first, min(first + step, size)))
            for class_id, size in enumerate(per_class_C)
            for first in range(0, size, step)
        ]

    def _path(self, class_id: int, span: range) -> Path:
        return self._folder / f"class-{class_id:03d}" / f"shard-{span.start // self._shard_images:03d}.npy"


def import_folder(
    path: Path, pool_folder: Path, class_names: Sequence[str], image_shape_CHW: tuple[int, int, int]
) -> SyntheticPool:
    """Write one's own synthetic images, in a folder a class, as a pool of the data set's shape.

    Args:
        path: has a folder for every class, named as the class; or by its number, where none has the name of a
            class. Hidden files are skipped. 16-bit values are read as shares of 65535; images are resized
            whole (area filter down, bicubic up).
        pool_folder: where the pool goes.
        class_names: [C] names of the data set's classes.
        image_shape_CHW: (channels, H, W) of the data set's images.

    Raises:
        UserError: a class has no folder or no images, or an image cannot be read.
    """
    files_C = [_files_of_class(folder) for folder in _class_folders(path, class_names)]
    channels, height_px, width_px = image_shape_CHW
    layout = Layout(channels=channels, height_px=height_px, width_px=width_px, window=SIXTEEN_BITS)
    digest = hashlib.sha256("".join(sha256_of(file) for files in files_C for file in files).encode())
    writer = PoolWriter(
        pool_folder,
        class_names=class_names,
        image_shape_CHW=image_shape_CHW,
        shard_images=IMPORTED_SHARD_IMAGES,
        source={"folder": str(path), "files_sha256": digest.hexdigest()},
    )
    sizes_C = [len(files) for files in files_C]
    for class_id, span in writer.missing(sizes_C):
        files = files_C[class_id][span.start : span.stop]
        writer.write(class_id, span, convert(DecodedFiles(files, SIXTEEN_BITS), layout))
    writer.commit(sizes_C)
    return SyntheticPool(pool_folder)


def _read_copies(pool_folder: Path, marks_folder: Path, sizes_C: list[int]) -> list[Int64]:
    path = marks_folder / COPIES_FILE
    if not path.exists():
        return [np.empty(0, np.int64) for _ in sizes_C]
    try:
        marks = json.loads(path.read_text(encoding="utf-8"))
        copies_C = [np.array(copies, np.int64) for copies in marks["copies"]]
        whose = marks["manifest_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not hold a pool's marks: {REJUDGE}") from error
    fits = len(copies_C) == len(sizes_C) and all(map(_within, copies_C, sizes_C))
    if not fits or whose != sha256_of(pool_folder / MANIFEST_FILE):
        raise UserError(f"{path} marks the copies of another pool than {pool_folder}: {REJUDGE}")
    return copies_C


def _within(numbers: Int64, size: int) -> bool:
    return bool(((numbers >= 0) & (numbers < size)).all())


def _class_folders(path: Path, class_names: Sequence[str]) -> list[Path]:
    """Return [C] folders, all by name or all by number: a class may have a name that is another's number."""
    by_name = any((path / name).is_dir() for name in class_names)
    folders = [path / (name if by_name else str(class_id)) for class_id, name in enumerate(class_names)]
    for folder, name in zip(folders, class_names, strict=True):
        if not folder.is_dir():
            wanted = " or ".join(map(repr, dict.fromkeys((name, folder.name))))
            raise UserError(f"{path} has no folder {wanted} with images of class {name!r}: add one")
    return folders


def _files_of_class(folder: Path) -> list[Path]:
    files = image_files(folder)
    if not files:
        raise UserError(f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)}): add some")
    return files


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise UserError(f"{path} is missing, so {folder} is no finished pool: name another, or finish this one")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["schema_version"]
        if version == SCHEMA_VERSION:
            _ = manifest["class_names"], manifest["image_shape_CHW"], manifest["shards"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a pool's manifest: {REMAKE}") from error
    if version != SCHEMA_VERSION:
        raise UserError(f"{path} has schema_version {version}, this rlcas reads {SCHEMA_VERSION}: {REMAKE}")
    return manifest


@functools.cache
def _sha256_once(path: Path, size_bytes: int, modified_ns: int) -> str:
    return sha256_of(path)


def _num_images(path: Path) -> int:
    return len(open_memmap(path, mode="r")) if path.exists() else 0
