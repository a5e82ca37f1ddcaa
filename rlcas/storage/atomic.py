"""Atomic writes: a file or folder is written under a temporary name, fsynced and renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlcas.credentials import without_credentials
from rlcas.errors import UserError, first_line
from rlcas.jsonable import jsonable
from rlcas.storage.reading import RESTORE, read_json

if TYPE_CHECKING:
    import numpy as np

CHUNK_BYTES = 1 << 20
# A full disk, a quota, a limit on the size of files.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FREE_SPACE = (
    "free disk space, then continue with `rlcas resume` or the same command; all complete files are kept"
)
WRITE_PROTECTED = (errno.EROFS, errno.EACCES, errno.EPERM)
MAKE_WRITABLE = "make the folder writable, or work in a copy of it"
SHORTEN = "shorten the name"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and takes `path`'s place.

    Example:
        with replacing(folder / "model.safetensors") as temporary:
            save_file(tensors, temporary)

    Raises:
        UserError: the disk is full or write-protected.
    """
    with _naming_the_fix(path):
        temporary = _new_beside(path)
        try:
            yield temporary
            # Before the rename: else a power cut can leave the new name with an empty file.
            _fsync(temporary)
            temporary.chmod(0o644)  # mkstemp makes files that only their owner may read
            temporary.replace(path)
            _fsync(path.parent)  # without it, a power cut can undo the rename
        finally:
            temporary.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Make the parent folders of `path` and check that it can be written, before anything slow starts.

    Raises:
        UserError: it cannot be written.
    """
    with _naming_the_fix(path):
        _new_beside(path).unlink()


def _new_beside(path: Path) -> Path:
    """Return a new empty file in the same folder as `path`; the folder is made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        raise UserError(
            f"{path} cannot be written: {path.parent} cannot be a folder ({error.strerror}); name another place"
        ) from error
    os.close(handle)
    return Path(name)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success its files are fsynced and it takes `path`'s place.

    Its name is always the same, so that the next process clears away the remains of a killed one.

    Raises:
        UserError: the disk is full or write-protected.
    """
    # Beside `path`, because a rename works within one file system only.
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with _naming_the_fix(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            # A folder's fsync keeps its entries, but not what the files hold.
            for written in (*temporary.rglob("*"), temporary):
                _fsync(written)
            # POSIX renames no folder over one that is not empty. Killed in between, neither is there, which
            # counts as not made.
            shutil.rmtree(path, ignore_errors=True)
            temporary.replace(path)
            _fsync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def exclusive_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold an advisory lock on `folder`; it ends with the process, however the process ends.

    Args:
        folder: an existing folder.
        wait: wait for the process that holds the lock, instead of raising.

    Raises:
        UserError: another process holds the lock.
    """
    # flock works on a folder's descriptor: no lock file stays behind, and the kernel drops it with the process.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock folders
            _lock(descriptor, folder, wait)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise UserError(f"{folder} is in use by another rlcas process: wait until it has ended") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, without the passwords of addresses."""
    with replacing(path) as temporary:
        temporary.write_text(without_credentials(text), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically; NaN becomes null."""
    write_text(path, json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n")


def write_array(path: Path, array: np.ndarray) -> None:
    """Write `array` as a `.npy` file atomically.

    `np.save` writes past Python's file object, so that its error on a full disk has no errno for `no_room`.
    """
    import numpy as np

    # `array.data` below must be the bytes in C order, without gaps.
    array = np.ascontiguousarray(array)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


def read_facts(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; an empty one if the file does not exist.

    Raises:
        UserError: the file holds something else.
    """
    facts = read_json(path) if path.exists() else {}
    if not isinstance(facts, dict):
        raise UserError(f"{path} is altered (it holds no JSON object): {RESTORE}")
    return facts


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def no_room(error: Exception) -> bool:
    """Return whether a write failed for lack of space: a full disk, a quota, a limit on the size of files."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in NO_ROOM
    return any(os.strerror(code) in str(error) for code in NO_ROOM)  # safetensors' error has the text only


def fix_for(error: Exception) -> str | None:
    """Return how the user can fix a failed write; None if they cannot."""
    if no_room(error):
        return FREE_SPACE
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return SHORTEN
    protected = isinstance(error, OSError) and error.errno in WRITE_PROTECTED
    return MAKE_WRITABLE if protected else None


@contextlib.contextmanager
def quiet_threads_without_room() -> Iterator[None]:
    """Silence "disk full" errors of threads: TensorBoard's writer raises them in the main thread too."""
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if not (isinstance(arguments.exc_value, Exception) and no_room(arguments.exc_value)):
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


@contextlib.contextmanager
def _naming_the_fix(path: Path) -> Iterator[None]:
    try:
        yield
    # safetensors and NumPy raise errors of their own for a full disk.
    except Exception as error:
        fix = fix_for(error)
        if isinstance(error, UserError) or fix is None:
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise UserError(f"{path} cannot be written ({reason}): {fix}") from error


def _fsync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
