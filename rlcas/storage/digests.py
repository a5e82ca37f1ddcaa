"""Digests of a folder's files, and a cache of folders that is addressed by these digests.

cache/<digest>/files/…   a complete copy, each file of which has the sha256 that went into the digest
.sha256.json             in a folder whose files were hashed: their sha256, sizes and times
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from rlcas.errors import UserError
from rlcas.storage.atomic import exclusive_lock, replacing_folder, sha256_of, write_json

NOTE_FILE = ".sha256.json"
CACHE_VARIABLE = "RLCAS_CACHE"
ATTEMPTS = 2
"""How often a file is fetched if its sha256 is not the expected one."""
CLOCK_TICKS_NS = 20_000_000
"""A file whose time stamp is this close to its check may have changed again after it, within the same clock tick."""

Digests = dict[str, str]
"""Name below the folder, with slashes -> hex sha256 of the file."""
Stamp = tuple[int, int, int]
"""Size in bytes, mtime and ctime in nanoseconds of a file."""
Read = Callable[[str], Iterable[memoryview]]
"""Name below the folder -> the file's bytes, in chunks."""


def cache_folder(setting: Path | None) -> Path:
    """Return this machine's cache folder: the setting, else the variable RLCAS_CACHE, else ~/.cache/rlcas."""
    return setting or Path(os.environ.get(CACHE_VARIABLE, "~/.cache/rlcas")).expanduser().absolute()


def digests_of(folder: Path) -> Digests:
    """Return the sha256 of each file below `folder`, without hidden ones.

    A file is hashed again only if its size or times have changed, or if the folder is read-only, so that its
    digests cannot be remembered there.

    Raises:
        UserError: the folder does not exist.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name an existing one")
    # Processes of one node that open the folder together hash it once: the others find the note.
    with exclusive_lock(folder, wait=True):
        names = sorted(names_below(folder))
        stamps = dict(zip(names, stamps_of(folder, names), strict=True))
        known = _remembered(folder, stamps)
        digests = {name: known.get(name) or sha256_of(folder / name) for name in names}
        if known.keys() != digests.keys():
            note = {name: [digest, *stamps[name]] for name, digest in digests.items()}
            # A read-only folder is hashed at every opening.
            with contextlib.suppress(OSError, UserError):
                write_json(folder / NOTE_FILE, note)
    return digests


def copied(
    digests: Digests, read: Read, cache: Path, digests_of: Callable[[Path], Digests] = digests_of
) -> Path:
    """Return a folder with these contents below `cache`; if it is missing or altered, one process makes it.

    Args:
        digests: the contents.
        read: reads a file in chunks; all bytes are hashed before the copy counts as complete.
        cache: the folder of all copies.
        digests_of: returns the contents of a folder.

    Raises:
        UserError: a file repeatedly arrives with another sha256, or the disk is full.
    """
    # The lock is on this folder, as `replacing_folder` swaps the one inside.
    place = cache / digest_of(digests)
    place.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(place, wait=True):
        if not holds(place / "files", digests, digests_of):
            _fill(place / "files", digests, read)
    return place / "files"


def holds(folder: Path, digests: Digests, digests_of: Callable[[Path], Digests] = digests_of) -> bool:
    """Return whether `folder` has these contents."""
    try:
        return digests_of(folder) == digests
    except UserError:
        return False


def digest_of(digests: Mapping[str, str]) -> str:
    """Return one digest for all of a folder's files and their names."""
    # Sorted: the order in which a file system lists the files must not count.
    return hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()


def names_below(folder: Path) -> Iterator[str]:
    """Yield the names of the files below `folder`, with slashes, without hidden ones."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix()


def stamps_of(folder: Path, files: Iterable[str]) -> list[Stamp]:
    """Return size and times of each of the files below `folder`, which change whenever a file does."""
    statuses = (os.stat(f"{folder}/{file}") for file in files)  # noqa: PTH116  Path.stat takes three times as long
    return [(status.st_size, status.st_mtime_ns, status.st_ctime_ns) for status in statuses]


def _remembered(folder: Path, stamps: Mapping[str, Stamp]) -> Digests:
    """Return the digests of those files that have not changed since they were hashed."""
    path = folder / NOTE_FILE
    try:
        note = json.loads(path.read_bytes())
        # ctime is compared, as a program can set mtime to any value but not this.
        before_ns = path.stat().st_mtime_ns - CLOCK_TICKS_NS
        return {
            name: str(note[name][0])
            for name, stamp in stamps.items()
            if name in note and tuple(note[name][1:]) == stamp and stamp[2] < before_ns
        }
    # A note that is missing or damaged costs only the hashing.
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}


def _fill(folder: Path, digests: Digests, read: Read) -> None:
    with replacing_folder(folder) as temporary:
        for name, digest in digests.items():
            if not any(_written(temporary / name, read(name)) == digest for _ in range(ATTEMPTS)):
                raise UserError(
                    f"{folder}: {name} arrived {ATTEMPTS} times with another sha256 than it was sent with: check the "
                    "memory, the disk and the network of the machines"
                )


def _written(path: Path, pieces: Iterable[memoryview]) -> str:
    """Write a file and return its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            # The bytes as they arrived, not as they are on the disk.
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()
