"""Files of JSON and of NumPy's arrays, read without pickle; what is wrong with one is told in one line."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rlcas.errors import UserError, first_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import TypeAdapter

Kind = TypeVar("Kind")

RESTORE = "restore or delete it"
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
"""What zipfile and NumPy raise of damaged files."""
MOST_REASON = 300
"""Characters of a library's error that are told."""


def read_json(path: Path, mend: str = RESTORE) -> Any:
    """Return the JSON value in `path`.

    Raises:
        UserError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {mend}") from error
    except NOT_JSON as error:
        raise UserError(f"{path} is truncated or altered ({first_line(error)}): {mend}") from error


def read_typed(path: Path, kind: TypeAdapter[Kind], mend: str = RESTORE) -> Kind:
    """Return the JSON value in `path`, which is of `kind`.

    Raises:
        UserError: it cannot be read, or is something else.
    """
    return typed(read_json(path, mend), kind, path, mend)


def typed(value: Any, kind: TypeAdapter[Kind], where: Path | str, mend: str = RESTORE) -> Kind:
    """Return what was read at `where`, which is of `kind`.

    Raises:
        UserError: it is something else; the message tells the first place.
    """
    from pydantic import ValidationError

    try:
        return kind.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        fault = f"{place}: {first['msg']}" if place else first["msg"]
        raise UserError(f"{where} is truncated or altered ({fault}): {mend}") from None


def open_array(path: Path, mend: str) -> NDArray[Any]:
    """Return the array of a `.npy` file, mapped read-only.

    Raises:
        UserError: the file is missing, truncated, altered or a pickle.
    """
    import numpy as np

    with _telling(path, "is missing, truncated or altered", mend):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays")
    return array


def read_arrays(path: Path, mend: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of an `.npz` file by name.

    Raises:
        UserError: the file is missing, truncated, altered, too large for this machine's memory, or holds a pickle.
    """
    import numpy as np

    with _telling(path, "is damaged", mend), open_npz_file(path) as file:
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
            raise ValueError("it is no npz file")
        with file:
            yield file


def read_member(file: np.lib.npyio.NpzFile, name: str, path: Path) -> NDArray[Any]:
    """Return an array of an opened file, unless it unpacks to more than this machine's memory.

    Raises:
        UserError: it does.
    """
    assert file.zip is not None  # which it is while the file is open
    packed = file.zip.NameToInfo
    member = packed.get(f"{name}.npy") or packed[name]
    require_memory(member.file_size, f"{path}: {name}")
    return file[name]


def require_memory(needed_bytes: float, what: str) -> None:
    """Refuse what does not fit into the memory that is free.

    Raises:
        UserError: it does not.
    """
    if needed_bytes > (free_bytes := available_memory_bytes()):
        raise UserError(
            f"{what} takes {needed_bytes / 1e9:.1f} GB of memory, of which {free_bytes / 1e9:.1f} are free: is the "
            "file what you take it for? Then end other programs, or use a machine with more"
        )


def available_memory_bytes() -> float:
    """Return the memory that programs can still get; all of it where the system does not tell."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if sys.platform != "linux":
        return total
    lines = Path("/proc/meminfo").read_text().splitlines()
    available_kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's; "max" is no limit
    words = limit.read_text().strip() if limit.exists() else "max"
    return min(1024 * available_kib, total if words == "max" else int(words))


@contextlib.contextmanager
def _telling(path: Path, fault: str, mend: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except NOT_ARRAYS as error:
        raise UserError(f"{path} {fault} ({reason_of(error)}): {mend}") from error


def reason_of(error: Exception) -> str:
    """Return an error's text as one line, cut where it quotes half a file, or its type's name where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MOST_REASON else f"{text[:MOST_REASON]} …"
