"""Check of where a Ray on this machine keeps its files: sockets and logs, and the token in the home folder."""

from __future__ import annotations

import datetime
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rlcas.doctor.finding import Finding, fault, ok

MAX_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""What the system takes as the path of a socket."""
LONGEST_SOCKET = "plasma_store"


class Obstacle(NamedTuple):
    """Why Ray cannot start."""

    found: str
    fix: str


def ray_folders() -> Finding:
    """Check that a Ray can be started on this machine, as far as its folders go."""
    obstacle = ray_obstacle(os.environ, Path.home())
    if obstacle is None:
        return ok(f"sockets and logs in {temporary_folder(os.environ)}")
    return fault(f"Ray cannot start: {obstacle.found}", obstacle.fix)


def ray_obstacle(environment: Mapping[str, str], home: Path) -> Obstacle | None:
    """Return why no Ray could be started on this machine; None if one could.

    Args:
        environment: the variables of the environment.
        home: the folder in which Ray looks for its token.
    """
    return _of_temporary_folder(environment) or _of_token(environment, home)


def temporary_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder below which Ray makes one for each session."""
    if "RAY_TMPDIR" in environment:
        return Path(environment["RAY_TMPDIR"], "ray")
    # Ray reads TMPDIR on Linux alone.
    return Path(environment.get("TMPDIR", "/tmp") if sys.platform == "linux" else "/tmp", "ray")


def longest_socket(folder: Path) -> Path:
    """Return the longest path of a socket of a session that this process would start."""
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    return folder / f"session_{now}_{os.getpid()}" / "sockets" / LONGEST_SOCKET


def _of_temporary_folder(environment: Mapping[str, str]) -> Obstacle | None:
    folder = temporary_folder(environment)
    if (num_bytes := len(os.fsencode(longest_socket(folder)))) > MAX_SOCKET_BYTES:
        return Obstacle(
            f"its sockets in {folder} have paths of {num_bytes} bytes, and the system takes {MAX_SOCKET_BYTES}",
            "set RAY_TMPDIR to a folder with a shorter path, such as RAY_TMPDIR=/tmp",
        )
    if reason := _unwritable(folder):
        return Obstacle(
            f"{folder}, for its sockets and logs, cannot be written to ({reason})",
            "set RAY_TMPDIR to a folder that can be",
        )
    return None


def _of_token(environment: Mapping[str, str], home: Path) -> Obstacle | None:
    if environment.get("RAY_AUTH_MODE", "token").lower() != "token" or environment.get("RAY_AUTH_TOKEN"):
        return None
    if named := environment.get("RAY_AUTH_TOKEN_PATH"):
        if reason := _unreadable(Path(named)):
            found = f"RAY_AUTH_TOKEN_PATH {named} cannot be read ({reason})"
            return Obstacle(found, "name the file with the token, or unset it")
        return None
    folder = home / ".ray"
    if (folder / "auth_token").is_file():
        return None
    # Ray makes a token at its first start here.
    if reason := _unwritable(folder):
        return Obstacle(
            f"{folder}, for its token, cannot be written to ({reason})",
            "set HOME to a folder that can be, or RAY_AUTH_TOKEN to a random text of yours",
        )
    return None


def _unwritable(folder: Path) -> str:
    """Return why no file can be made in a folder, or in the nearest one above where it must be made first."""
    try:
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        with tempfile.TemporaryFile(dir=existing):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _unreadable(file: Path) -> str:
    try:
        return "" if file.read_bytes().strip() else "it is empty"
    except OSError as error:
        return error.strerror or str(error)
