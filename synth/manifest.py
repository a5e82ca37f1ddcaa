"""The manifest of a pool, and the record that its shards were verified against it.

pool/manifest.json   origin, classes, shape, and every shard's file, count and sha256; a pool without it is unfinished
pool/verified.json   a digest of the shards' sizes and times when all their sha256 were last checked
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic refuses typing's own before Python 3.12
)

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from rlcas.errors import UserError
from rlcas.storage.atomic import replacing, sha256_of
from rlcas.storage.digests import CLOCK_TICKS_NS, Digests, Stamp, stamps_of
from rlcas.storage.reading import NOT_JSON, open_array

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
COPIES_FILE = "copies.json"
FILTERED_FILE = "filtered.json"
VERIFIED_FILE = "verified.json"
REMAKE = "delete the pool and make it again"


class Shard(TypedDict):
    """One file of a pool."""

    class_id: Annotated[int, Field(ge=0)]
    # No ../ and no absolute path: an altered manifest cannot name files outside of its pool.
    file: Annotated[str, Field(pattern=r"^class-\d+/shard-\d+\.npy$")]
    """Path relative to the pool's folder."""
    count: Annotated[int, Field(ge=1)]
    sha256: str


class Manifest(TypedDict):
    """The content of manifest.json."""

    # The first field, as only the first error is shown: a newer manifest may lack or rename the others.
    schema_version: Literal[1]
    class_names: list[str]
    image_shape_CHW: tuple[int, int, int]
    dtype: Literal["uint8"]
    shard_images: int
    source: dict[str, Any]
    learnt_from: NotRequired[list[str] | None]
    """Hashes of the images that the generator was trained on (`rlcas.types.PartRecord`); pools made before 0.2, and
    imported ones, do not say."""
    shards: list[Shard]


_MANIFEST = TypeAdapter(Manifest)


def verified_manifest(folder: Path) -> Manifest:
    """Return the manifest of the pool in `folder` after checking that all shards agree with it.

    Every shard's sha256 is computed once; later, unchanged sizes and times are enough.

    Raises:
        UserError: the manifest or a shard is missing, altered, or of another version.
    """
    text = _text(folder)
    manifest = _parsed(text, folder / MANIFEST_FILE)
    try:
        # Before hashing, so that a shard that is changed meanwhile does not pass for verified.
        stamps = stamps_of(folder, (shard["file"] for shard in manifest["shards"]))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{error.filename} is missing, though the pool's manifest lists it: {REMAKE}") from None
    if not _is_remembered(folder, text, stamps):
        for shard in manifest["shards"]:
            _check(folder / shard["file"], shard, manifest["image_shape_CHW"])
        remember(folder, text, stamps)
    return manifest


def pool_digests(folder: Path) -> Digests:
    """Return the sha256 of each file of the pool in `folder`, as `digests_of` does, without hashing the shards again.

    Raises:
        UserError: as `verified_manifest`.
    """
    shards = {shard["file"]: shard["sha256"] for shard in verified_manifest(folder)["shards"]}
    small = [name for name in (MANIFEST_FILE, COPIES_FILE, FILTERED_FILE) if (folder / name).exists()]
    return {**shards, **{name: sha256_of(folder / name) for name in small}}


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the pool in `folder` without checking the shards.

    Raises:
        UserError: it is missing, not a manifest, or of another version.
    """
    return _parsed(_text(folder), folder / MANIFEST_FILE)


def remember(folder: Path, manifest: bytes, stamps: Sequence[Stamp]) -> None:
    """Record that the shards with these stamps agree with `manifest`; on a read-only disk nothing is recorded."""
    with contextlib.suppress(OSError, UserError), replacing(folder / VERIFIED_FILE) as temporary:
        temporary.write_text(json.dumps({"digest": _digest(manifest, stamps)}), encoding="utf-8")


def _text(folder: Path) -> bytes:
    """Return the bytes of the manifest.

    Raises:
        UserError: there is none.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise UserError(
            f"{path} is missing, so {folder} is not a finished pool: name another, or finish this one"
        )
    return path.read_bytes()


def _parsed(text: bytes, path: Path) -> Manifest:
    """Return the validated manifest.

    Raises:
        UserError: it is not a manifest, of another version, or contradicts itself.
    """
    try:
        manifest = _MANIFEST.validate_json(text)
    except ValidationError as error:
        # One line for the user: the first fault is enough, as the fix is the same for all.
        first = error.errors()[0]
        if first["loc"] == ("schema_version",) and first["type"] == "literal_error":
            raise UserError(
                f"{path} has schema_version {first['input']}, this rlcas reads {SCHEMA_VERSION}: {REMAKE}"
            ) from None
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise UserError(f"{path} is not a pool's manifest ({where}: {first['msg']}): {REMAKE}") from None
    if any(shard["class_id"] >= len(manifest["class_names"]) for shard in manifest["shards"]):
        raise UserError(
            f"{path} is not a pool's manifest (a shard's class_id is not one of its classes): {REMAKE}"
        )
    # A shard listed twice would have the right sha256, and its images would count twice.
    if len({shard["file"] for shard in manifest["shards"]}) < len(manifest["shards"]):
        raise UserError(f"{path} is not a pool's manifest (it lists a shard twice): {REMAKE}")
    return manifest


def _is_remembered(folder: Path, manifest: bytes, stamps: Sequence[Stamp]) -> bool:
    """Return whether the shards were checked against this manifest and have not changed since.

    A shard written within a clock tick of the record could have changed after the check with the same times.
    """
    path = folder / VERIFIED_FILE
    try:
        digest = json.loads(path.read_bytes())["digest"]
        checked_ns = path.stat().st_mtime_ns
    except (OSError, *NOT_JSON, KeyError, TypeError):
        return False
    changed_ns = max((changed for _, _, changed in stamps), default=0)
    return changed_ns < checked_ns - CLOCK_TICKS_NS and digest == _digest(manifest, stamps)


def _digest(manifest: bytes, stamps: Sequence[Stamp]) -> str:
    return hashlib.sha256(manifest + np.array(stamps, np.int64).tobytes()).hexdigest()


def _check(path: Path, shard: Shard, image_shape_CHW: tuple[int, int, int]) -> None:
    """Check a shard's sha256, shape and dtype.

    Raises:
        UserError: the file is missing, or one of them differs from the manifest.
    """
    if not path.is_file() or sha256_of(path) != shard["sha256"]:
        raise UserError(f"{path} is not the file that the pool's manifest lists (sha256 differs): {REMAKE}")
    # The sha256 says nothing about the shape, which an altered manifest can state wrongly with the right hash.
    images = open_array(path, REMAKE)
    if images.shape != (shard["count"], *image_shape_CHW) or images.dtype != np.uint8:
        raise UserError(
            f"{path} holds {images.dtype} {list(images.shape)}, but the pool's manifest says "
            f"{shard['count']} uint8 images of {list(image_shape_CHW)}: {REMAKE}"
        )
