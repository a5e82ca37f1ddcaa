"""The error that the user can fix, and the error that ends a run."""

import re
import sys

from rlcas.credentials import without_credentials

ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class UserError(ValueError):
    """Wrong input: the message is one line that names the setting or file, its value and the fix.

    The command line prints it without a traceback and exits with status 2. The message may quote an untrusted file:
    line ends become spaces, control characters are escaped, and passwords in addresses are hidden.
    """

    def __init__(self, text: str) -> None:
        super().__init__(_printable(without_credentials(" ".join(text.splitlines()))))


class RunError(RuntimeError):
    """A run that cannot continue, although the input is right: the message says why, with the workers' tracebacks.

    The command line prints it without a traceback of its own and exits with status 1. Passwords in addresses are
    hidden.
    """

    def __init__(self, text: str) -> None:
        super().__init__(without_credentials(text))


def _printable(text: str) -> str:
    # A name in a stranger's file could otherwise send escape sequences to the terminal.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type's name where the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def last_line(text: str) -> str:
    """Return the last line of a traceback, which is its cause, without the colours that Ray gives it."""
    return next(iter(reversed(ANSI_COLOUR.sub("", text).strip().splitlines())), "no message")


def escape_what_streams_cannot_show() -> None:
    """Let stdout and stderr print letters that their encoding lacks as escapes: a class name must not end a run."""
    for stream in (sys.stdout, sys.stderr):
        # Streams that others put in their place may have no encoding. The locale C has surrogateescape.
        if hasattr(stream, "reconfigure") and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")
