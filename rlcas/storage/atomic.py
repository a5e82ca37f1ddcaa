"""Files that are there whole or not at all: write to a temporary name, fsync, rename."""

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
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FREE_SPACE = "free disk space, then go on with `rlcas resume` or the same command; what is whole is kept"
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
        UserError: there is no room on the disk, or it must not be written.
    """
    with _naming_the_fix(path):
        temporary = _new_beside(path)
        try:
            yield temporary
            _fsync(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
            _fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Make the folders on the way to `path`, and find out whether it can be written before it costs anything.

    Raises:
        UserError: it cannot.
    """
    with _naming_the_fix(path):
        _new_beside(path).unlink()


def _new_beside(path: Path) -> Path:
    """Return a new empty file beside `path`, whose folders are made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        raise UserError(
            f"{path} cannot be written, for {path.parent} can be no folder ({error.strerror}): name another place"
        ) from error
    os.close(handle)
    return Path(name)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success all in it is fsynced and it takes `path`'s place.

    Its name is always the same, so that what a killed process left is cleared away by the next.

    Raises:
        UserError: there is no room on the disk, or it must not be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with _naming_the_fix(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for written in (*temporary.rglob("*"), temporary):
                _fsync(written)
            shutil.rmtree(path, ignore_errors=True)
            temporary.replace(path)
            _fsync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def exclusive_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes that ask for it out of `folder`; the lock ends with the process, however it ends.

    Args:
        folder: any that is there.
        wait: wait for a process that is at work there, instead of raising.

    Raises:
        UserError: another process is at work there.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network disks lock no folders
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
    """Write `text` to `path`, whole or not at all, and without the passwords of addresses."""
    with replacing(path) as temporary:
        temporary.write_text(without_credentials(text), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all; NaN becomes null."""
    write_text(path, json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n")


def write_array(path: Path, array: np.ndarray) -> None:
    """Write `array` as a `.npy` file, whole or not at all.

    `np.save` would write past Python's file object, and a full disk would lose its error number.
    """
    import numpy as np

    array = np.ascontiguousarray(array)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


def read_facts(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; an empty one where there is no such file.

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
    """Return whether a write failed for want of room: a full disk, a quota, a limit on the size of files."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in NO_ROOM
    return any(os.strerror(code) in str(error) for code in NO_ROOM)  # safetensors gives the text alone


def fix_for(error: Exception) -> str | None:
    """Return how the user mends a file that failed; None where it failed for no reason of theirs."""
    if no_room(error):
        return FREE_SPACE
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return SHORTEN
    protected = isinstance(error, OSError) and error.errno in WRITE_PROTECTED
    return MAKE_WRITABLE if protected else None


@contextlib.contextmanager
def quiet_threads_without_room() -> Iterator[None]:
    """Let threads not print that the disk is full: TensorBoard's raises it in the main thread too, which tells it."""
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
    except Exception as error:
        mend = fix_for(error)
        if isinstance(error, UserError) or mend is None:
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise UserError(f"{path} cannot be written ({reason}): {mend}") from error


def _fsync(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
