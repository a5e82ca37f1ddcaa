"""The command line of `rlcas`; slow imports are inside the commands, so that `--help` is fast."""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Sequence

from rlcas.commands.command import Command, parse
from rlcas.commands.submit import submit, submit_arguments
from rlcas.commands.table import COMMANDS, name_of
from rlcas.errors import RunError, UserError, escape_what_streams_cannot_show
from rlcas.storage.atomic import fix_for
from rlcas.storage.remote import address_of, local, publish

DESCRIPTION = (
    "Long-tailed image classification: RL agents choose how many synthetic images of each class to train on."
)
CLOSED_PIPE = 141
"""128 + SIGPIPE, as a shell gives it."""
INTERRUPTED = "interrupted: continue with `rlcas resume DIR`, or a sweep with `rlcas sweep --resume DIR`"

ALL_COMMANDS: dict[str, Command] = {
    **COMMANDS,
    "submit": Command("run another command as a job on a Ray cluster", submit, own=submit_arguments),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 success, 2 an error of the user, 1 any other."""
    escape_what_streams_cannot_show()
    try:
        try:
            return _run(argv)
        finally:
            _flush()  # here, as Python itself would print a traceback at its end
    except BrokenPipeError:
        if _is_read():
            raise
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE


def _flush() -> None:
    # None where the shell closed it (>&-).
    if sys.stdout is not None:
        sys.stdout.flush()


def _is_read() -> bool:
    """Return whether stdout still has a reader, whom `rlcas ... | head` ends after its lines."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _run(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    name = name_of(words)
    if name not in ALL_COMMANDS:
        return _overview(words)
    arguments = parse(name, ALL_COMMANDS[name], words[len(name.split()) :])
    try:
        return _act(ALL_COMMANDS[name], arguments)
    except UserError as error:
        print(f"rlcas: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"rlcas: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        fix = fix_for(error)
        # An error that the user cannot fix keeps its traceback.
        if fix is None:
            raise
        print(f"rlcas: {error}: {fix}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"rlcas: {interrupt if interrupt.args else INTERRUPTED}", file=sys.stderr)
        # 128 + SIGINT, as a shell gives it.
        return 130


def _act(command: Command, arguments: argparse.Namespace) -> int:
    """Run a command; where its folder is an address, it works in a local copy, which is published afterwards."""
    if command.folder is None or address_of(arguments.folder) is None:
        return command.action(arguments)
    arguments.folder = local(arguments.folder, without=command.without)
    status = command.action(arguments)
    publish(arguments.folder)
    return status


def _overview(words: list[str]) -> int:
    """Print the answer to `--help`, `--version` or an unknown command; return the exit status."""
    from rlcas import __version__

    width = max(map(len, ALL_COMMANDS))
    listing = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in ALL_COMMANDS.items())
    if words in (["--version"], ["-V"]):
        print(f"rlcas {__version__}")
        return 0
    if words and words[0] != "synth":  # the only command of two words, which an error must quote whole
        del words[1:]
    if words and words[-1] not in ("-h", "--help"):
        known = ", ".join(ALL_COMMANDS)
        print(f"rlcas: unknown command {' '.join(words[:2])!r}: use one of {known}", file=sys.stderr)
        return 2
    print(f"usage: rlcas COMMAND ...\n\n{DESCRIPTION}\n\ncommands:\n{listing}\n")
    print("`rlcas COMMAND --help` lists its settings. Not a medical device.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
