"""Check of who may use Ray: whoever holds its token runs code on every node."""

from __future__ import annotations

import os
from pathlib import Path

from rlcas.doctor.finding import Finding, ok, warn

OTHERS = 0o077
"""The permission bits of everyone but a file's owner."""
MAKE_ONE = (
    "ray get-auth-token --generate, and export RAY_AUTH_MODE=token on every node and wherever you call rlcas"
)


def ray_token() -> Finding:
    """Check whether Ray asks for its token, and who may read it."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named or Path.home() / ".ray" / "auth_token")
    if named and not path.is_file():
        return warn(f"RAY_AUTH_TOKEN_PATH {named} is not a file", "name the file with the token, or unset it")
    permissions = path.stat().st_mode if path.is_file() else None
    in_environment = bool(os.environ.get("RAY_AUTH_TOKEN"))
    return judge_token(os.environ.get("RAY_AUTH_MODE"), path, permissions, in_environment)


def judge_token(mode: str | None, path: Path, permissions: int | None, in_environment: bool) -> Finding:
    """Judge Ray's token.

    Args:
        mode: the environment variable RAY_AUTH_MODE.
        path: the token's file.
        permissions: the file's mode bits; None if it does not exist.
        in_environment: whether RAY_AUTH_TOKEN holds a token, which goes before the file.
    """
    if mode is not None and mode.lower() != "token":
        return warn(
            f"RAY_AUTH_MODE is {mode}: whoever reaches Ray's ports runs code as you", "unset RAY_AUTH_MODE"
        )
    if in_environment:
        return ok("asked for; RAY_AUTH_TOKEN holds it")
    if permissions is not None:
        if permissions & OTHERS:
            return warn(f"other users of this machine may read {path}", f"chmod 600 {path}")
        return ok(f"asked for; {path} is yours alone to read")
    if mode is None:
        return warn(
            f"no {path} yet: the Ray that rlcas starts makes it and asks for it, but one that `ray start` starts "
            "before asks nobody, and whoever reaches its ports runs code as you",
            MAKE_ONE,
        )
    return warn(f"RAY_AUTH_MODE is token, but there is no {path}: `ray start` refuses to start", MAKE_ONE)
