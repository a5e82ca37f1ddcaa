"""JSON files and NumPy arrays, read without pickle; a fault of a file becomes an error of one line."""

from __future__ import annotations

import contextlib
import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rlcas.errors import UserError, first_line
from rlcas.storage.memory import available_memory_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import TypeAdapter

Kind = TypeVar("Kind")

RESTORE = "restore or delete it"
# Invalid JSON and invalid UTF-8 are both ValueErrors; brackets nested deep enough are a RecursionError.
NOT_JSON = (ValueError, RecursionError)
NOT_ARRAYS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
    *(
        OSError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        SyntaxError,
        RuntimeError,
        OverflowError,
        MemoryError,
    ),
)
"""What zipfile and NumPy raise for damaged files."""
MAX_REASON_CHARACTERS = 300
"""How much of a library's error is quoted: NumPy's can quote half the file."""


def read_json(path: Path, fix: str = RESTORE) -> Any:
    """Return the JSON value in `path`; `fix` ends the error message.

    Raises:
        UserError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {fix}") from error
    except NOT_JSON as error:
        raise UserError(f"{path} is truncated or altered ({first_line(error)}): {fix}") from error


def read_typed(path: Path, kind: TypeAdapter[Kind], fix: str = RESTORE) -> Kind:
    """Return the JSON value in `path`, checked to be of `kind`.

    Raises:
        UserError: it cannot be read, or is of another kind.
    """
    return typed(read_json(path, fix), kind, path, fix)


def typed(value: Any, kind: TypeAdapter[Kind], where: Path | str, fix: str = RESTORE) -> Kind:
    """Return `value` after checking that it is of `kind`.

    Args:
        value: what was read.
        kind: the type that it must have.
        where: the file, and the line if there is one, for the error message.
        fix: the end of the error message.

    Raises:
        UserError: it is of another kind; the message names the first place that is.
    """
    from pydantic import ValidationError

    try:
        return kind.validate_python(value)
    except ValidationError as error:
        # The input may be the whole file.
        first = error.errors(include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        fault = f"{place}: {first['msg']}" if place else first["msg"]
        raise UserError(f"{where} is truncated or altered ({fault}): {fix}") from None


def open_array(path: Path, fix: str) -> NDArray[Any]:
    """Return the array of a `.npy` file, mapped read-only.

    Raises:
        UserError: the file is missing, truncated, altered or a pickle.
    """
    import numpy as np

    with _naming_the_file(path, "is missing, truncated or altered", fix):
        # Mapped: all processes of a node share the pages. A pickle in a user's file could run any code.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        # np.load goes by the content: a zip file is an NpzFile whatever its name.
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays")
    return array


def read_arrays(path: Path, fix: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of an `.npz` file by name.

    Raises:
        UserError: the file is missing, truncated, altered, too large for this machine's memory, or holds a pickle.
    """
    import numpy as np

    with _naming_the_file(path, "is damaged", fix), open_npz_file(path) as file:
        return {name: np.asanyarray(read_member(file, name, path)) for name in file.files}


@contextlib.contextmanager
def open_npz_file(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """Open an `.npz` file.

    Raises:
        ValueError: it is another kind of file.
    """
    import numpy as np

    # Opened here, because np.load does not close a file of its own that turns out to be damaged.
    with path.open("rb") as raw:
        file = np.load(raw, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it is not an npz file")
        with file:
            yield file


def read_member(file: np.lib.npyio.NpzFile, name: str, path: Path) -> NDArray[Any]:
    """Return an array of an opened file.

    Raises:
        UserError: it unpacks to more than the free memory of this machine.
    """
    assert file.zip is not None  # it is None once the file is closed
    packed = file.zip.NameToInfo
    # NumPy drops the ending in the names that it gives.
    member = packed.get(f"{name}.npy") or packed[name]
    # Before it is unpacked: a few kilobytes can unpack to more than the memory.
    require_memory(member.file_size, f"{path}: {name}")
    return file[name]


def require_memory(needed_bytes: float, what: str) -> None:
    """Check that `needed_bytes` fit into the free memory.

    Raises:
        UserError: they do not.
    """
    if needed_bytes > (free_bytes := available_memory_bytes()):
        raise UserError(
            f"{what} takes {needed_bytes / 1e9:.1f} GB of memory, but {free_bytes / 1e9:.1f} GB are free: check that "
            "it is the right file, then end other programs or use a machine with more memory"
        )


@contextlib.contextmanager
def _naming_the_file(path: Path, fault: str, fix: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except NOT_ARRAYS as error:
        raise UserError(f"{path} {fault} ({reason_of(error)}): {fix}") from error


def reason_of(error: Exception) -> str:
    """Return an error's message as one line, cut if it is long; its type's name if it has no message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_REASON_CHARACTERS else f"{text[:MAX_REASON_CHARACTERS]} …"
