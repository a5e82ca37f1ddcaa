"""Addresses of object stores and servers (s3://, gs://, … by fsspec), and the local folders that stand for them.

Everything works in local folders. What lies at an address is fetched into one below the cache, file by file and only
where it differs; a folder that stands for an address is brought there, whole files only and in an order in which a
reader finds at any moment what `rlcas resume` can go on from.

.address.json     which address a folder stands for
.published.json   for each file: what the store said of it, and its size and times here, when both were the same
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rlcas.credentials import WHERE_THEY_BELONG, has_credentials, without_credentials
from rlcas.errors import UserError, first_line
from rlcas.storage.atomic import exclusive_lock, read_facts, replacing, write_json
from rlcas.storage.digests import cache_folder, names_below, stamps_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

ADDRESS_FILE = ".address.json"
NOTE_FILE = ".published.json"
BULKY = ("checkpoints", "judge", "pool", "population", "prepared", "replay", "synth")
"""Parts of a run's folder of which its classifier and its report need the facts (.json) alone."""
LAST = (
    "data.json", "synthesiser.json", "manifest.json", "sha256.json", "model.safetensors", "metrics.json",
)  # fmt: skip
"""Files without which what lies beside them does not count, in the order in which a run writes them."""
VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created", "updated")
"""What stores say of a file that changes with it."""
ATOMIC = ("s3", "s3a", "gs", "gcs", "abfs", "az", "memory")
"""Stores where a file that is put is there whole or not at all; elsewhere it is put beside its place and renamed."""
SMALL_BYTES = 16 << 20

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/+(?P<rest>.*)")


def address_of(place: str | Path) -> str | None:
    """Return the address that `place` is, or None where it is a path; a Path has lost one of an address's slashes."""
    match = _ADDRESS.fullmatch(str(place))
    if match is None or (isinstance(place, str) and "://" not in place):
        return None
    root = "/" if match["scheme"] in ("file", "local") else ""
    return f"{match['scheme']}://{root}{match['rest']}"


def fetched(place: str | Path, cache: Path | None) -> Path:
    """Return `place` where it is a path; of an address, the copy below the cache of what lies there now.

    Raises:
        UserError: the address cannot be read, or nothing lies there.
    """
    address = address_of(place)
    if address is None:
        return Path(place).expanduser()
    folder = _folder_for(address, cache, "fetched")
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder, wait=True):
        return folder / name if (name := _pull(address, folder)) else folder


def local(place: Path, *, without: Collection[str] = ()) -> Path:
    """Return the folder in which to work on the run `place`: itself or, of an address, its local copy.

    What was changed in the copy and never published is undone.

    Args:
        place: a run's folder, or its address.
        without: parts of which the facts are enough.

    Raises:
        UserError: the address cannot be read, or nothing lies there; or another process is at work in the copy.
    """
    address = address_of(place)
    if address is None:
        return place
    folder = _folder_for(address, None, "parts" if without else "runs")
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder):
        _pull(address, folder, without)
        write_json(folder / ADDRESS_FILE, {"address": address})
    return folder


def working_folder(address: str, cache: Path | None) -> Path:
    """Return the local folder in which a run works whose place is `address`."""
    return _folder_for(address, cache, "runs")


def check_is_new(address: str) -> None:
    """Refuse an address where something lies already.

    Raises:
        UserError: something does, or the store cannot be asked.
    """
    store, root = _store(address)
    with _telling(address, "read"):
        taken = bool(store.exists(root) and store.find(root))
    if taken:
        raise UserError(
            f"out {address} is there and not empty: name another with --out, or go on with it by "
            f"`rlcas resume {address}`"
        )


def begin(address: str, folder: Path) -> None:
    """Let the empty `folder` stand for `address` from now on."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / ADDRESS_FILE, {"address": address})


def address_for(place: Path) -> str | None:
    """Return the address that `place`, or a folder that it lies in, stands for; None where there is none."""
    folder = _published_folder(place)
    return None if folder is None else str(read_facts(folder / ADDRESS_FILE)["address"])


def publish(place: Path) -> None:
    """Bring what has changed in the folder that `place` lies in to the address that it stands for, if to any.

    Raises:
        UserError: the store cannot be written to.
    """
    folder = _published_folder(place)
    if folder is None:
        return
    address = str(read_facts(folder / ADDRESS_FILE)["address"])
    store, root = _store(address)
    note = read_facts(folder / NOTE_FILE)
    names = sorted(names_below(folder), key=_rank)
    with _telling(
        address, "written", f"; all is kept in {folder}, and `rlcas resume {folder}` goes on with it"
    ):
        for name in names:
            stamp = _stamp(folder, name)
            if note.get(name, [None, None])[1] != stamp:
                _put(store, folder / name, f"{root}/{name}")
                note[name] = [_version(store.info(f"{root}/{name}")), stamp]
        for name in sorted(note.keys() - set(names), key=_rank, reverse=True):
            with contextlib.suppress(FileNotFoundError):  # gone since a time that ended before its note
                store.rm_file(f"{root}/{name}")
            del note[name]
    write_json(folder / NOTE_FILE, note)


def _pull(address: str, folder: Path, without: Collection[str] = ()) -> str | None:
    """Make `folder` what lies at the address, but for the parts left out; return the name of what is a file alone."""
    store, root = _store(address)
    note = read_facts(folder / NOTE_FILE)
    with _telling(address, "read"):
        alone, there = _files(store, root)
        if not there:
            _check_answers(store, root)
        there = {name: info for name, info in there.items() if _is_wanted(name, without)}
        for name, info in there.items():
            if note.get(name) != [_version(info), _stamp(folder, name)]:
                _get(store, info, folder / name)
                note[name] = [_version(info), _stamp(folder, name)]
    if not there:
        raise UserError(f"nothing lies at {address}: mend the address")
    for name in set(names_below(folder)) - there.keys():
        (folder / name).unlink()
    write_json(folder / NOTE_FILE, {name: note[name] for name in there})
    return alone


def _files(store: AbstractFileSystem, root: str) -> tuple[str | None, dict[str, Any]]:
    """Return what the store says of all files below `root`, by name; and `root`'s own name where it is a file."""
    if store.isfile(root):
        name = PurePosixPath(root).name
        return name, {name: store.info(root)}
    found = store.find(root, detail=True)
    by_name = {path.removeprefix(root).lstrip("/"): info for path, info in found.items()}
    parts = {name: PurePosixPath(name).parts for name in by_name}
    return None, {
        name: by_name[name]
        for name in sorted(by_name)
        if ".." not in parts[name] and not any(part.startswith(".") for part in parts[name])
    }


def _check_answers(store: AbstractFileSystem, root: str) -> None:
    """Raise what kept a store from answering; fsspec's http tells a server that is down as a file that is missing."""
    try:
        store.info(root)
    except FileNotFoundError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            raise cause from None


def _is_wanted(name: str, without: Collection[str]) -> bool:
    return name.partition("/")[0] not in without or name.endswith(".json")


def _get(store: AbstractFileSystem, info: dict[str, Any], path: Path) -> None:
    with replacing(path) as temporary:
        store.get_file(info["name"], str(temporary))
        if info["size"] not in (None, size := temporary.stat().st_size):
            raise OSError(f"{path.name} came with {size} bytes, not {info['size']}")


def _put(store: AbstractFileSystem, file: Path, path: str) -> None:
    """Put a file there whole or not at all."""
    protocols = (store.protocol,) if isinstance(store.protocol, str) else store.protocol
    atomic = any(protocol in ATOMIC for protocol in protocols)
    parent, _, name = path.rpartition("/")
    target = path if atomic else f"{parent}/.{name}.tmp"
    if not atomic:
        store.makedirs(parent, exist_ok=True)
    if file.stat().st_size <= SMALL_BYTES:
        store.pipe_file(target, file.read_bytes())  # read at once: lines may be appended to it meanwhile
    else:
        store.put_file(str(file), target)
    if not atomic:
        store.mv(target, path)


def _store(address: str) -> tuple[AbstractFileSystem, str]:
    """Return the store of an address and the path in it."""
    if has_credentials(address):
        raise UserError(
            f"{without_credentials(address)} has a password or key in its address: {WHERE_THEY_BELONG}"
        )
    import fsspec

    try:
        store, root = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise UserError(
            f"{address} needs a package that is not installed ({first_line(error)}): pip install 'rlcas[remote]', "
            "or the package that fsspec has for it"
        ) from error
    except ValueError as error:
        raise UserError(f"{address} is no address that fsspec knows ({first_line(error)}): mend it") from error
    store.invalidate_cache()  # what others have brought there since
    return store, root.rstrip("/")


@contextlib.contextmanager
def _telling(address: str, done: str, more: str = "") -> Iterator[None]:
    """Tell an address that fails in one line; every store has errors of its own."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(
            f"{address} cannot be {done} ({reason}): look at the address, the network and the credentials{more}"
        ) from error


def _folder_for(address: str, cache: Path | None, kind: str) -> Path:
    """Return the folder below the cache that stands for an address."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", address.rstrip("/").rpartition("/")[2])
    digest = hashlib.sha256(address.rstrip("/").encode()).hexdigest()
    return cache_folder(cache) / kind / f"{name}-{digest[:16]}"


def _published_folder(place: Path) -> Path | None:
    return next((folder for folder in (place, *place.parents) if (folder / ADDRESS_FILE).is_file()), None)


def _rank(name: str) -> tuple[int, str]:
    file = PurePosixPath(name).name
    return (LAST.index(file) + 1 if file in LAST else 0, name)


def _version(info: dict[str, Any]) -> list[str]:
    return [str(info.get("size")), *(str(info[key]) for key in VERSIONS if key in info)]


def _stamp(folder: Path, name: str) -> list[int] | None:
    return list(stamps_of(folder, [name])[0]) if (folder / name).is_file() else None
