"""The error class for what a user can mend, and the one for what ended a run."""

from rlcas.credentials import without_credentials


class UserError(ValueError):
    """Wrong input: the text is one line that names the setting or file, its value and the mend.

    The command line prints it without a traceback and exits with status 2. It may quote a stranger's file: line
    ends become spaces, control characters are escaped, and passwords in addresses are not told.
    """

    def __init__(self, text: str) -> None:
        super().__init__(_printable(without_credentials(" ".join(text.splitlines()))))


class RunError(RuntimeError):
    """A run that cannot go on through no fault of the user's: the text says why, with the workers' tracebacks.

    The command line prints it without a traceback of its own and exits with status 1. Passwords in addresses are
    not told.
    """

    def __init__(self, text: str) -> None:
        super().__init__(without_credentials(text))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type's name where the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
