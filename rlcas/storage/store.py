"""Object stores and servers (s3://, gs://, … by fsspec): listing, reading and writing their files.

Every store has errors of its own; `store_errors` turns them into one line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rlcas.credentials import WHERE_THEY_BELONG, has_credentials, without_credentials
from rlcas.errors import UserError, first_line
from rlcas.storage.atomic import replacing

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created", "updated")
"""Keys of a store's description of a file whose values change when the file does."""
ATOMIC = ("s3", "s3a", "gs", "gcs", "abfs", "az", "memory")
"""Stores where an upload is atomic; elsewhere a file is uploaded under a temporary name and renamed."""
SMALL_BYTES = 16 << 20


def open_store(address: str) -> tuple[AbstractFileSystem, str]:
    """Return the store of an address and the path in it.

    Raises:
        UserError: the address has a password in it, fsspec does not know it, or its package is not installed.
    """
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
        raise UserError(
            f"{address} is not an address that fsspec knows ({first_line(error)}): correct the address"
        ) from error
    store.invalidate_cache()  # fsspec caches listings, and another machine may have written since
    return store, root.rstrip("/")


@contextlib.contextmanager
def store_errors(address: str, done: str, more: str = "") -> Iterator[None]:
    """Turn any error of a store into a UserError of one line.

    Args:
        address: for the message.
        done: what is being done, as in "cannot be read".
        more: an end of the message.

    Raises:
        UserError: the store raised an error.
    """
    try:
        yield
    except UserError:
        raise
    # The stores' packages share no class of errors.
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(
            f"{address} cannot be {done} ({reason}): check the address, the network and the credentials{more}"
        ) from error


def files_of(store: AbstractFileSystem, root: str) -> tuple[str | None, dict[str, Any]]:
    """Return `root`'s own name if it is a file, else None; and name -> the store's description of each file."""
    if store.isfile(root):
        name = PurePosixPath(root).name
        return name, {name: store.info(root)}
    found = store.find(root, detail=True)
    by_name = {path.removeprefix(root).lstrip("/"): info for path, info in found.items()}
    parts = {name: PurePosixPath(name).parts for name in by_name}
    return None, {
        name: by_name[name]
        for name in sorted(by_name)
        # The names become paths below a local folder, which they must not leave; hidden files are uploads under
        # way.
        if ".." not in parts[name] and not any(part.startswith(".") for part in parts[name])
    }


def check_store_answers(store: AbstractFileSystem, root: str) -> None:
    """Check that an empty result is not a failed connection: fsspec reports a server that is down as a missing file.

    Raises:
        OSError: the error of the connection.
    """
    try:
        store.info(root)
    except FileNotFoundError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            raise cause from None


def get_file(store: AbstractFileSystem, info: dict[str, Any], path: Path) -> None:
    """Download the file that the store describes by `info` to `path`, atomically.

    Raises:
        OSError: it arrived with another size than the store reports.
    """
    with replacing(path) as temporary:
        store.get_file(info["name"], str(temporary))
        # A connection that breaks off may look like the end of the file; some servers report no size.
        if info["size"] not in (None, size := temporary.stat().st_size):
            raise OSError(f"{path.name} arrived with {size} bytes, not {info['size']}")


def put_file(store: AbstractFileSystem, file: Path, path: str) -> None:
    """Upload a file to `path` in the store, atomically."""
    protocols = (store.protocol,) if isinstance(store.protocol, str) else store.protocol
    atomic = any(protocol in ATOMIC for protocol in protocols)
    parent, _, name = path.rpartition("/")
    # Hidden, so that `files_of` does not take an unfinished upload for a file.
    target = path if atomic else f"{parent}/.{name}.tmp"
    if not atomic:
        store.makedirs(parent, exist_ok=True)
    if file.stat().st_size <= SMALL_BYTES:
        store.pipe_file(target, file.read_bytes())  # read at once, because a log may grow during the upload
    else:
        store.put_file(str(file), target)
    if not atomic:
        store.mv(target, path)


def version_of(info: dict[str, Any]) -> list[str]:
    """Return the part of a store's description of a file that changes when the file does."""
    return [str(info.get("size")), *(str(info[key]) for key in VERSIONS if key in info)]
