"""A pool of synthetic images on disk: per-class memory-mapped shards, and a manifest that is written last.

pool/class-000/shard-000.npy   uint8 [n, channels, H, W]
pool/plan.json                 what the images come from; written first
pool/manifest.json             the same, with every shard's count and sha256 (`synth.manifest`)
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from rlcas.data.decode import IMAGE_SUFFIXES, DecodedFiles
from rlcas.data.folder import image_files
from rlcas.data.pixels import Layout, convert
from rlcas.errors import UserError, first_line
from rlcas.files import jsonable, sha256_of, write_array, write_json
from rlcas.types import Int64, Uint8
from synth.manifest import (
    MANIFEST_FILE,
    REMAKE,
    SCHEMA_VERSION,
    Shard,
    read_manifest,
    remember,
    stamps_of,
    verified_manifest,
)

PLAN_FILE = "plan.json"
IMPORTED_SHARD_IMAGES = 256
SIXTEEN_BITS = (0.0, 65535.0)


class SyntheticPool:
    """The images of a finished pool, read through memory maps (a `rlcas.types.SyntheticSource`).

    Opening it checks that every shard is the one that the manifest lists; a shard is mapped when an image of it
    is first asked for. All readers on a machine share the pages of the maps.

    Attributes:
        manifest: the manifest's content.
        class_names: [C] names.
        image_shape_CHW: (channels, H, W).

    Raises:
        UserError: the manifest or a shard is missing, altered, or of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest = verified_manifest(self.folder)
        self.class_names: tuple[str, ...] = tuple(self.manifest["class_names"])
        self.image_shape_CHW = self.manifest["image_shape_CHW"]
        self._shards_C: list[list[Shard]] = [[] for _ in self.class_names]
        for shard in self.manifest["shards"]:
            self._shards_C[shard["class_id"]].append(shard)
        self._maps: dict[str, Uint8] = {}

    @property
    def class_sizes_C(self) -> Int64:
        """Return [C] int64: images there are of each class."""
        return np.array([sum(shard["count"] for shard in shards) for shards in self._shards_C], dtype=np.int64)

    def images(self, class_id: int, indices: Int64) -> Uint8:
        """Return [len(indices), channels, H, W] uint8: images `indices` of the class, in that order."""
        images, indices = np.empty((len(indices), *self.image_shape_CHW), dtype=np.uint8), np.asarray(indices)
        shards = self._shards_C[class_id]
        ends = np.cumsum([shard["count"] for shard in shards])
        if len(indices) and not 0 <= indices.min() <= indices.max() < ends[-1]:
            raise IndexError(f"class {class_id} has images 0 to {ends[-1] - 1}, not {indices.tolist()}")
        shard_of = np.searchsorted(ends, indices, side="right")
        for number in np.unique(shard_of):
            here, start = shard_of == number, ends[number] - shards[number]["count"]
            images[here] = self._mapped(shards[number])[indices[here] - start]
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

    def _mapped(self, shard: Shard) -> Uint8:
        """Return the shard's images [count, channels, H, W], which lie at the end of its file."""
        file = shard["file"]
        if file not in self._maps:
            path, shape = self.folder / file, (shard["count"], *self.image_shape_CHW)
            header_bytes = path.stat().st_size - math.prod(shape)
            mapped = np.memmap(path, dtype=np.uint8, mode="r", offset=header_bytes, shape=shape)
            self._maps[file] = mapped.view(np.ndarray)
        return self._maps[file]


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
        elif _read_plan(plan_file) != self._plan:
            raise UserError(
                f"{self._folder} holds a pool of another origin or of other settings: name another folder, "
                "or delete this one"
            )

    def missing(self, per_class_C: Sequence[int]) -> list[tuple[int, range]]:
        """Return (class, span of image numbers) of each shard that is yet to be written.

        A file that is not whole, or not what a manifest lists, is to be written again.
        """
        finished = (self._folder / MANIFEST_FILE).exists()
        listed = {shard["file"]: shard for shard in (read_manifest(self._folder)["shards"] if finished else ())}
        return [
            (class_id, span)
            for class_id, span in self._spans(per_class_C)
            if not self._is_whole(self._file(class_id, span), len(span), listed)
        ]

    def write(self, class_id: int, span: range, images_NCHW: Uint8) -> None:
        """Write one shard, whole or not at all."""
        assert images_NCHW.dtype == np.uint8 and len(images_NCHW) == len(span)
        (self._folder / MANIFEST_FILE).unlink(missing_ok=True)
        write_array(self._folder / self._file(class_id, span), images_NCHW)

    def commit(self, per_class_C: Sequence[int]) -> None:
        """Write the manifest: from here on the folder is a pool. What killed writers left is cleared away."""
        for left in self._folder.glob("class-*/.*.tmp"):
            left.unlink()
        spans = self._spans(per_class_C)
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
        write_json(manifest, {**self._plan, "shards": shards})
        remember(self._folder, manifest.read_bytes(), stamps)

    def _spans(self, per_class_C: Sequence[int]) -> list[tuple[int, range]]:
        step = self._shard_images
        return [
            (class_id, range(first, min(first + step, size)))
            for class_id, size in enumerate(per_class_C)
            for first in range(0, size, step)
        ]

    def _file(self, class_id: int, span: range) -> str:
        return f"class-{class_id:03d}/shard-{span.start // self._shard_images:03d}.npy"

    def _is_whole(self, file: str, count: int, listed: Mapping[str, Shard]) -> bool:
        path = self._folder / file
        if not path.exists():
            return False
        try:
            images = open_memmap(path, mode="r")
        except ValueError:  # cut off
            return False
        same_shape = list(images.shape) == [count, *self._plan["image_shape_CHW"]]
        return same_shape and (file not in listed or sha256_of(path) == listed[file]["sha256"])


def _read_plan(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not a pool's plan ({first_line(error)}): {REMAKE}") from error


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
