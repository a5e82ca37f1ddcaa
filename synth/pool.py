"""A pool of synthetic images on disk: memory-mapped shards of each class, read here and written by `synth.pool_writer`.

pool/class-000/shard-000.npy   uint8 [n, channels, H, W]
pool/plan.json                 origin, classes and shape of the images; written first
pool/manifest.json             the same, with every shard's count and sha256; written last (`synth.manifest`)
pool/copies.json               which images are copies of training images, once the pool has been scored
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlcas.errors import UserError
from rlcas.storage.atomic import sha256_of, write_json
from rlcas.storage.reading import NOT_JSON
from rlcas.types import Int64, Uint8
from synth.manifest import (
    COPIES_FILE,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    Shard,
    verified_manifest,
)

REJUDGE = "delete it, and the pool is scored again"


class SyntheticPool:
    """The images of a finished pool, read through memory maps (a `rlcas.types.SyntheticSource`).

    Opening checks that every shard is the one that the manifest lists; a shard is mapped when one of its images is
    first read. All readers on a machine share the pages of the maps. Images marked by `mark_copies` are skipped, and
    the others are numbered without gaps.

    Args:
        folder: the pool's folder.
        with_copies: do not skip the marked images.
        marks_folder: the folder of the marks. None: the pool's folder.

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
        self.manifest = verified_manifest(self.folder)
        self.class_names: tuple[str, ...] = tuple(self.manifest["class_names"])
        self.image_shape_CHW = self.manifest["image_shape_CHW"]
        self._shards_C: list[list[Shard]] = [[] for _ in self.class_names]
        for shard in self.manifest["shards"]:
            self._shards_C[shard["class_id"]].append(shard)
        self._stored_C = [sum(shard["count"] for shard in shards) for shards in self._shards_C]
        self.copies_C = _read_copies(self.folder, marks_folder or self.folder, self._stored_C)
        self._skipped_C = [np.empty(0, np.int64)] * len(self.copies_C) if with_copies else self.copies_C
        self._maps: dict[str, Uint8] = {}

    @property
    def class_sizes_C(self) -> Int64:
        """Return [C] int64: number of images of each class."""
        skipped_C = [len(skipped) for skipped in self._skipped_C]
        return np.array(self._stored_C, dtype=np.int64) - np.array(skipped_C, dtype=np.int64)

    def images(self, class_id: int, indices: Int64) -> Uint8:
        """Return [len(indices), channels, H, W] uint8: images `indices` of the class, in that order.

        Raises:
            IndexError: an index is outside the class.
        """
        indices = np.asarray(indices)
        shards, skipped = self._shards_C[class_id], self._skipped_C[class_id]
        size = self._stored_C[class_id] - len(skipped)
        # NumPy would take -1 for the last image.
        if len(indices) and not 0 <= indices.min() <= indices.max() < size:
            raise IndexError(f"class {class_id} has images 0 to {size - 1}, not {indices.tolist()}")
        stored = np.arange(self._stored_C[class_id])
        # From numbers without gaps to those in the shards; without marks they are the same.
        numbers = np.delete(stored, skipped)[indices] if len(skipped) else indices
        ends = np.cumsum([shard["count"] for shard in shards])
        shard_of = np.searchsorted(ends, numbers, side="right")
        images_NCHW = np.empty((len(indices), *self.image_shape_CHW), dtype=np.uint8)
        for shard in set(shard_of.tolist()):
            rows, start = shard_of == shard, ends[shard] - shards[shard]["count"]
            # Indexing by an array copies just these rows out of the map.
            images_NCHW[rows] = self._mapped(shards[shard])[numbers[rows] - start]
        return images_NCHW

    def require(self, class_names: Sequence[str], image_shape_CHW: tuple[int, int, int]) -> None:
        """Check that the pool has these classes and this shape of images.

        Raises:
            UserError: it has others.
        """
        for what, own, wanted in (
            ("classes", list(self.class_names), list(class_names)),
            ("images of shape", list(self.image_shape_CHW), list(image_shape_CHW)),
        ):
            if own != wanted:
                raise UserError(
                    f"pool {self.folder} has {what} {own}, the data set {wanted}: make a pool for it"
                )

    def _mapped(self, shard: Shard) -> Uint8:
        """Return the shard's images [count, channels, H, W] on the pages of its file.

        The images are the last bytes of the file, after the .npy header, and the manifest has their shape. Plain
        `mmap`, because setting up an `np.memmap` is slow compared with a first draw of 32 images.
        """
        file = shard["file"]
        if file not in self._maps:
            with (self.folder / file).open("rb") as opened:
                # The map outlives the file object; read-only pages are never copied, so readers share them.
                pages = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            shape = (shard["count"], *self.image_shape_CHW)
            self._maps[file] = np.frombuffer(pages, np.uint8)[-math.prod(shape) :].reshape(shape)
        return self._maps[file]


def mark_copies(
    pool_folder: Path,
    copies_by_class: Sequence[Int64],
    facts: Mapping[str, Any],
    *,
    marks_folder: Path | None = None,
) -> None:
    """Write copies.json: the images of this pool that `SyntheticPool` skips from now on.

    Args:
        pool_folder: a finished pool; the marks are valid for its present manifest only.
        copies_by_class: [C] arrays of image numbers.
        facts: how the copies were found.
        marks_folder: where to write. None: into the pool's folder.
    """
    marks = {
        "schema_version": SCHEMA_VERSION,
        # Image numbers mean nothing in a pool that was filled again.
        "manifest_sha256": sha256_of(pool_folder / MANIFEST_FILE),
        "copies": list(copies_by_class),
        **facts,
    }
    write_json((marks_folder or pool_folder) / COPIES_FILE, marks)


def _read_copies(pool_folder: Path, marks_folder: Path, sizes_C: list[int]) -> list[Int64]:
    """Return [C] arrays of the numbers of marked images; empty ones if there are no marks.

    Raises:
        UserError: the file does not hold marks, or those of another pool.
    """
    path = marks_folder / COPIES_FILE
    if not path.exists():
        return [np.empty(0, np.int64) for _ in sizes_C]
    try:
        marks = json.loads(path.read_text(encoding="utf-8"))
        copies_C = [np.array(copies, np.int64) for copies in marks["copies"]]
        manifest_sha256 = marks["manifest_sha256"]
    except (*NOT_JSON, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{path} does not hold a pool's marks: {REJUDGE}") from error
    fits = len(copies_C) == len(sizes_C) and all(map(_are_marks_of, copies_C, sizes_C))
    if not fits or manifest_sha256 != sha256_of(pool_folder / MANIFEST_FILE):
        raise UserError(f"{path} marks the copies of another pool than {pool_folder}: {REJUDGE}")
    return copies_C


def _are_marks_of(numbers: Int64, size: int) -> bool:
    """Return whether these are distinct images of a class of `size`, but not all of them."""
    inside = ((numbers >= 0) & (numbers < size)).all()
    # An image listed twice would make class_sizes_C too small; a class without images cannot be drawn from.
    return numbers.ndim == 1 and bool(inside) and len(np.unique(numbers)) == len(numbers) < size
