"""A pool of synthetic images on disk: memory-mapped shards of each class, written once, read by many processes.

pool/class-000/shard-000.npy   uint8 [n, channels, H, W]
pool/plan.json                 origin, classes and shape of the images; written first
pool/manifest.json             the same, with every shard's count and sha256; written last (`synth.manifest`)
pool/copies.json               which images are copies of training images, once the pool has been scored
pool/filtered.json             which images the filters of `synth.filter` leave out, once they have been applied
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from rlcas.errors import UserError, first_line
from rlcas.jsonable import jsonable
from rlcas.storage.atomic import sha256_of, write_array, write_json
from rlcas.storage.digests import stamps_of
from rlcas.storage.reading import NOT_ARRAYS, NOT_JSON
from rlcas.types import Int64, Uint8
from synth.manifest import (
    COPIES_FILE,
    FILTERED_FILE,
    MANIFEST_FILE,
    REMAKE,
    SCHEMA_VERSION,
    Shard,
    read_manifest,
    remember,
    verified_manifest,
)

PLAN_FILE = "plan.json"
REJUDGE = "delete it, and the pool is scored again"


class SyntheticPool:
    """The images of a finished pool, read through memory maps (a `rlcas.types.SyntheticSource`).

    Opening checks that every shard is the one that the manifest lists; a shard is mapped when one of its images is
    first read. All readers on a machine share the pages of the maps. Images marked by `mark_copies` or
    `mark_filtered` are skipped, and the others are numbered without gaps.

    Args:
        folder: the pool's folder.
        with_copies: do not skip the images marked as copies.
        with_filtered: do not skip those that the filters leave out.
        marks_folder: the folder of the marks. None: the pool's folder.

    Attributes:
        manifest: the manifest's content.
        class_names: [C] names.
        image_shape_CHW: (channels, H, W).
        learnt_from: hashes of the images that the generator was trained on; None where the pool does not say.
        copies_C: [C] arrays of the numbers of the images marked as copies.
        filtered_C: [C] arrays of the numbers of those that the filters leave out.

    Raises:
        UserError: the manifest or a shard is missing, altered, or of another version; or the marks are not
            this pool's.
    """

    def __init__(
        self,
        folder: Path,
        *,
        with_copies: bool = False,
        with_filtered: bool = False,
        marks_folder: Path | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.manifest = verified_manifest(self.folder)
        self.class_names: tuple[str, ...] = tuple(self.manifest["class_names"])
        self.image_shape_CHW = self.manifest["image_shape_CHW"]
        self.learnt_from = self.manifest.get("learnt_from")
        self._shards_C: list[list[Shard]] = [[] for _ in self.class_names]
        for shard in self.manifest["shards"]:
            self._shards_C[shard["class_id"]].append(shard)
        self._stored_C = [sum(shard["count"] for shard in shards) for shards in self._shards_C]
        marked = [
            _read_marks(self.folder, (marks_folder or self.folder) / file, self._stored_C)
            for file in (COPIES_FILE, FILTERED_FILE)
        ]
        self.copies_C, self.filtered_C = marked
        none_C = [np.empty(0, np.int64)] * len(self._stored_C)
        self._skipped_C = list(
            map(
                np.union1d,
                none_C if with_copies else self.copies_C,
                none_C if with_filtered else self.filtered_C,
            )
        )
        if any(len(skipped) == size > 0 for skipped, size in zip(self._skipped_C, self._stored_C, strict=True)):
            raise UserError(
                f"{(marks_folder or self.folder) / FILTERED_FILE} and {COPIES_FILE} beside it leave out all images of "
                "a class: delete both, and the pool is scored again"
            )
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
    _write_marks(pool_folder, (marks_folder or pool_folder) / COPIES_FILE, copies_by_class, facts)


def mark_filtered(
    pool_folder: Path,
    filtered_by_class: Sequence[Int64],
    facts: Mapping[str, Any],
    *,
    marks_folder: Path | None = None,
) -> None:
    """Write filtered.json: the images of this pool that the filters leave out, as `mark_copies` does.

    Args:
        pool_folder: a finished pool; the marks are valid for its present manifest only.
        filtered_by_class: [C] arrays of image numbers; of each class one image at least is neither here nor a copy.
        facts: the filters and what they found.
        marks_folder: where to write. None: into the pool's folder.
    """
    _write_marks(pool_folder, (marks_folder or pool_folder) / FILTERED_FILE, filtered_by_class, facts)


def _write_marks(pool_folder: Path, path: Path, by_class: Sequence[Int64], facts: Mapping[str, Any]) -> None:
    marks = {
        "schema_version": SCHEMA_VERSION,
        # Image numbers mean nothing in a pool that was filled again.
        "manifest_sha256": sha256_of(pool_folder / MANIFEST_FILE),
        path.stem: list(by_class),
        **facts,
    }
    write_json(path, marks)


def _read_marks(pool_folder: Path, path: Path, sizes_C: list[int]) -> list[Int64]:
    """Return [C] arrays of the numbers of marked images; empty ones if there are no marks.

    Raises:
        UserError: the file does not hold marks, or those of another pool.
    """
    if not path.exists():
        return [np.empty(0, np.int64) for _ in sizes_C]
    try:
        marks = json.loads(path.read_text(encoding="utf-8"))
        marked_C = [np.array(numbers, np.int64) for numbers in marks[path.stem]]
        manifest_sha256 = marks["manifest_sha256"]
    except (*NOT_JSON, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{path} does not hold a pool's marks: {REJUDGE}") from error
    fits = len(marked_C) == len(sizes_C) and all(map(_are_marks_of, marked_C, sizes_C))
    if not fits or manifest_sha256 != sha256_of(pool_folder / MANIFEST_FILE):
        what = "copies" if path.name == COPIES_FILE else "images"
        raise UserError(f"{path} marks the {what} of another pool than {pool_folder}: {REJUDGE}")
    return marked_C


def _are_marks_of(numbers: Int64, size: int) -> bool:
    """Return whether these are distinct images of a class of `size`, but not all of them."""
    inside = ((numbers >= 0) & (numbers < size)).all()
    # An image listed twice would make class_sizes_C too small; a class without images cannot be drawn from.
    return numbers.ndim == 1 and bool(inside) and len(np.unique(numbers)) == len(numbers) < size


class PoolWriter:
    """Writes a pool shard by shard; an interrupted one is resumed if its plan is the same.

    Args:
        folder: the pool's folder.
        class_names: [C] names.
        image_shape_CHW: (channels, H, W).
        shard_images: images of a full shard.
        source: what the images come from, as JSON; a pool with another source is not resumed.
        learnt_from: hashes of the images that the generator was trained on; None: unknown.

    Raises:
        UserError: the folder holds a pool with another plan.
    """

    def __init__(
        self,
        folder: Path,
        *,
        class_names: Sequence[str],
        image_shape_CHW: tuple[int, ...],
        shard_images: int,
        source: dict[str, Any],
        learnt_from: Sequence[str] | None = None,
    ) -> None:
        self._folder = Path(folder)
        self._learnt_from = learnt_from
        self._shard_images = shard_images
        # In the form that JSON gives back (lists, plain numbers), so that == compares it with a stored plan.
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
        elif _read_plan(plan_file) != self._plan:
            raise UserError(
                f"{self._folder} holds a pool of another origin or of other settings: name another folder, "
                "or delete this one"
            )

    def missing(self, class_sizes_C: Sequence[int]) -> list[tuple[int, range]]:
        """Return (class, span of image numbers) of each shard to write.

        A truncated file, or one that differs from an existing manifest, is written again.
        """
        finished = (self._folder / MANIFEST_FILE).exists()
        # Without a manifest there is no sha256 to compare; but a shard takes its name only when it is complete.
        listed = {shard["file"]: shard for shard in (read_manifest(self._folder)["shards"] if finished else ())}
        return [
            (class_id, span)
            for class_id, span in self._spans(class_sizes_C)
            if not self._is_whole(self._file(class_id, span), len(span), listed)
        ]

    def write(self, class_id: int, span: range, images_NCHW: Uint8) -> None:
        """Write one shard atomically.

        Manifest and marks are removed first: from then on they would describe other images.
        """
        assert images_NCHW.dtype == np.uint8 and len(images_NCHW) == len(span)
        for stale in (MANIFEST_FILE, COPIES_FILE, FILTERED_FILE):
            (self._folder / stale).unlink(missing_ok=True)
        write_array(self._folder / self._file(class_id, span), images_NCHW)

    def commit(self, class_sizes_C: Sequence[int]) -> None:
        """Write the manifest, which makes the folder a finished pool; delete temporary files of killed writers."""
        for temporary in self._folder.glob("class-*/.*.tmp"):
            temporary.unlink()
        spans = self._spans(class_sizes_C)
        # Before hashing, so that a shard that is changed meanwhile does not pass for verified.
        stamps = stamps_of(self._folder, (self._file(class_id, span) for class_id, span in spans))
        shards = [
            {
                "class_id": class_id,
                "file": self._file(class_id, span),
                "count": len(span),
                "sha256": sha256_of(self._folder / self._file(class_id, span)),
            }
            for class_id, span in spans
        ]
        manifest = self._folder / MANIFEST_FILE
        write_json(manifest, {**self._plan, "learnt_from": self._learnt_from, "shards": shards})
        # The bytes on the disk, as readers hash them; so the first opening need not hash the shards again.
        remember(self._folder, manifest.read_bytes(), stamps)

    def _spans(self, class_sizes_C: Sequence[int]) -> list[tuple[int, range]]:
        """Return (class, span of image numbers) of every shard."""
        step = self._shard_images
        return [
            (class_id, range(first, min(first + step, size)))
            for class_id, size in enumerate(class_sizes_C)
            for first in range(0, size, step)
        ]

    def _file(self, class_id: int, span: range) -> str:
        return f"class-{class_id:03d}/shard-{span.start // self._shard_images:03d}.npy"

    def _is_whole(self, file: str, count: int, listed: Mapping[str, Shard]) -> bool:
        """Return whether the file holds `count` images and has the sha256 that the manifest lists for it, if any."""
        path = self._folder / file
        if not path.exists():
            return False
        try:
            images = open_memmap(path, mode="r")
        except NOT_ARRAYS:  # truncated
            return False
        same_shape = list(images.shape) == [count, *self._plan["image_shape_CHW"]]
        return same_shape and (file not in listed or sha256_of(path) == listed[file]["sha256"])


def _read_plan(path: Path) -> object:
    """Return the content of plan.json.

    Raises:
        UserError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except NOT_JSON as error:
        raise UserError(f"{path} is not a pool's plan ({first_line(error)}): {REMAKE}") from error
