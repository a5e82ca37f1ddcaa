"""Writing a pool: plan, shards, and last the manifest; an interrupted pool is resumed at its missing shards."""

from __future__ import annotations

import json
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
from rlcas.types import Uint8
from synth.manifest import (
    COPIES_FILE,
    MANIFEST_FILE,
    REMAKE,
    SCHEMA_VERSION,
    Shard,
    read_manifest,
    remember,
)

PLAN_FILE = "plan.json"


class PoolWriter:
    """Writes a pool shard by shard; an interrupted one is resumed if its plan is the same.

    Args:
        folder: the pool's folder.
        class_names: [C] names.
        image_shape_CHW: (channels, H, W).
        shard_images: images of a full shard.
        source: what the images come from, as JSON; a pool with another source is not resumed.

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
    ) -> None:
        self._folder = Path(folder)
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
        for stale in (MANIFEST_FILE, COPIES_FILE):
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
        write_json(manifest, {**self._plan, "shards": shards})
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
