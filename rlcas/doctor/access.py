"""Check of who may use Ray: whoever holds its token runs code on every node."""

from __future__ import annotations

import os
from pathlib import Path

from rlcas.doctor.finding import Finding, ok, warn

OTHERS = 0o077
"""The permission bits of everyone but a file's owner."""


def ray_token() -> Finding:
    """Check whether Ray asks for its token, and who may read it."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    permissions = path.stat().st_mode if path.is_file() else None
    return judge_token(os.environ.get("RAY_AUTH_MODE"), path, permissions)


def judge_token(mode: str | None, path: Path, permissions: int | None) -> Finding:
    """Judge Ray's token.

    Args:
        mode: the environment variable RAY_AUTH_MODE.
        path: the token's file.
        permissions: the file's mode bits; None if it does not exist.
    """
    if mode == "disabled":
        return warn(
            "RAY_AUTH_MODE is disabled: whoever reaches Ray's ports runs code as you", "unset RAY_AUTH_MODE"
        )
    if permissions is None:
        return ok("asked for; Ray makes it at its first start, or RAY_AUTH_TOKEN holds it")
    if permissions & OTHERS:
        return warn(f"other users of this machine may read {path}", f"chmod 600 {path}")
    return ok(f"asked for; {path} is yours alone to read")
