"""Addresses of object stores and servers (s3://, gs://, … by fsspec), and the local folders that stand for them.

All work is done in local folders. The files at an address are fetched into a folder below the cache, and only those
that differ. A folder that stands for an address is published there, complete files only and in such an order that
`rlcas resume` can continue from what is at the address at any moment.

.address.json     the address that a folder stands for
.published.json   for each file, when both copies were last the same: its version in the store, its local size and times
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rlcas.errors import UserError
from rlcas.storage.atomic import exclusive_lock, read_facts, write_json
from rlcas.storage.digests import cache_folder, names_below, stamps_of
from rlcas.storage.store import (
    check_store_answers,
    files_of,
    get_file,
    open_store,
    put_file,
    store_errors,
    version_of,
)

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

ADDRESS_FILE = ".address.json"
NOTE_FILE = ".published.json"
BULKY = ("checkpoints", "judge", "pool", "population", "prepared", "replay", "synth")
"""Parts of a run's folder from which its classifier and its report need only the .json files."""
LAST = (
    "data.json", "synthesiser.json", "manifest.json", "sha256.json", "model.safetensors", "metrics.json",
)  # fmt: skip
"""Files that make those beside them valid, in the order in which a run writes them; they are published last."""

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/+(?P<rest>.*)")


def address_of(place: str | Path) -> str | None:
    """Return `place` as an address, None if it is a path; pathlib drops a slash of an address, which is restored."""
    match = _ADDRESS.fullmatch(str(place))
    if match is None or (isinstance(place, str) and "://" not in place):
        return None
    # Paths on a disk start with the third slash: file:///folder.
    root = "/" if match["scheme"] in ("file", "local") else ""
    return f"{match['scheme']}://{root}{match['rest']}"


def fetched(place: str | Path, cache: Path | None) -> Path:
    """Return `place` if it is a path; for an address, an up-to-date copy below the cache.

    Raises:
        UserError: the address cannot be read, or there is nothing at it.
    """
    address = address_of(place)
    if address is None:
        return Path(place).expanduser()
    folder = _folder_for(address, cache, "fetched")
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder, wait=True):
        return folder / name if (name := _pull(address, folder)) else folder


def local(place: str | Path, *, without: Collection[str] = ()) -> Path:
    """Return the folder in which to work on a run: `place` itself or, for an address, its local copy.

    Changes in the copy that were never published are undone.

    Args:
        place: a run's folder, or its address.
        without: parts of which only the .json files are fetched.

    Raises:
        UserError: the address cannot be read, there is nothing at it, or another process works in the copy.
    """
    address = address_of(place)
    if address is None:
        return Path(place)
    # A place of its own for a copy in part: in the working folder, `_pull` would delete the parts that are left
    # out.
    folder = _folder_for(address, None, "parts" if without else "runs")
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder):
        _pull(address, folder, without)
        write_json(folder / ADDRESS_FILE, {"address": address})
    return folder


def working_folder(address: str, cache: Path | None) -> Path:
    """Return the local folder in which a run with `--out` `address` works."""
    return _folder_for(address, cache, "runs")


def check_address_is_new(address: str) -> None:
    """Check that there is nothing at an address.

    Raises:
        UserError: there is something, or the store cannot be read.
    """
    store, root = open_store(address)
    with store_errors(address, "read"):
        taken = bool(store.exists(root) and store.find(root))
    if taken:
        raise UserError(
            f"out {address} exists and is not empty: name another with --out, or continue it with "
            f"`rlcas resume {address}`"
        )


def begin(address: str, folder: Path) -> None:
    """Make `folder` a new, empty one that stands for `address`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / ADDRESS_FILE, {"address": address})


def address_for(place: Path) -> str | None:
    """Return the address that `place` or a folder above it stands for; None if there is none."""
    folder = _published_folder(place)
    return None if folder is None else str(read_facts(folder / ADDRESS_FILE)["address"])


def publish(place: Path) -> None:
    """Publish the changes in the folder that holds `place` to its address, if it stands for one.

    Raises:
        UserError: the store cannot be written to.
    """
    folder = _published_folder(place)
    if folder is None:
        return
    address = str(read_facts(folder / ADDRESS_FILE)["address"])
    store, root = open_store(address)
    note = read_facts(folder / NOTE_FILE)
    more = f"; all files are kept in {folder}; continue with `rlcas resume {folder}`"
    try:
        with store_errors(address, "written", more):
            _send(folder, store, root, note)
    finally:
        # After a failure too: what has arrived by then is not sent again.
        write_json(folder / NOTE_FILE, note)


def _send(folder: Path, store: AbstractFileSystem, root: str, note: dict[str, Any]) -> None:
    """Upload what is new or changed since `note`, remove what is gone, and note each file when it is done."""
    # Files that list others come after these: what is at the address is complete at any moment.
    names = sorted(names_below(folder), key=_rank)
    for name in names:
        # Before the upload: what is written to the file meanwhile counts as a change next time.
        stamp = _stamp(folder, name)
        if note.get(name, [None, None])[1] != stamp:
            put_file(store, folder / name, f"{root}/{name}")
            note[name] = [version_of(store.info(f"{root}/{name}")), stamp]
    # In reverse: first the file that lists the others, so that it never lists missing ones. New files are there by
    # now.
    for name in sorted(note.keys() - set(names), key=_rank, reverse=True):
        # It may have been removed by a process that ended before it wrote its note.
        with contextlib.suppress(FileNotFoundError):
            store.rm_file(f"{root}/{name}")
        del note[name]


def _pull(address: str, folder: Path, without: Collection[str] = ()) -> str | None:
    """Make `folder` a copy of the address, without the parts left out; return the name if it is a single file."""
    store, root = open_store(address)
    note = read_facts(folder / NOTE_FILE)
    with store_errors(address, "read"):
        single, found = files_of(store, root)
        if not found:
            check_store_answers(store, root)
        wanted = {name: info for name, info in found.items() if _is_wanted(name, without)}
        for name, info in wanted.items():
            if note.get(name) != [version_of(info), _stamp(folder, name)]:
                get_file(store, info, folder / name)
                note[name] = [version_of(info), _stamp(folder, name)]
    if not wanted:
        raise UserError(f"{address} does not exist or is empty: correct the address")
    # What was removed at the address, or never published, would count as part of the run.
    for name in set(names_below(folder)) - wanted.keys():
        (folder / name).unlink()
    write_json(folder / NOTE_FILE, {name: note[name] for name in wanted})
    return single


def _is_wanted(name: str, without: Collection[str]) -> bool:
    return name.partition("/")[0] not in without or name.endswith(".json")


def _folder_for(address: str, cache: Path | None, kind: str) -> Path:
    """Return the folder below the cache that stands for an address."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", address.rstrip("/").rpartition("/")[2])
    # Two addresses may end in the same name.
    digest = hashlib.sha256(address.rstrip("/").encode()).hexdigest()
    return cache_folder(cache) / kind / f"{name}-{digest[:16]}"


def _published_folder(place: Path) -> Path | None:
    return next((folder for folder in (place, *place.parents) if (folder / ADDRESS_FILE).is_file()), None)


def _rank(name: str) -> tuple[int, str]:
    file = PurePosixPath(name).name
    return (LAST.index(file) + 1 if file in LAST else 0, name)


def _stamp(folder: Path, name: str) -> list[int] | None:
    return list(stamps_of(folder, [name])[0]) if (folder / name).is_file() else None
