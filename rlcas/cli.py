"""The commands of `rlcas`; every heavy import is inside its command, so that `--help` is instant."""

from __future__ import annotations


def main() -> int:
    """Run the command line; return the exit status."""
    return 0
