"""The table of the commands of `rlcas`; every heavy import is inside its command, so that `--help` is instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rlcas.commands.command import Command, parse
from rlcas.commands.submit import submit, submit_arguments
from rlcas.commands.table import COMMANDS, name_of
from rlcas.errors import RunError, UserError
from rlcas.storage.atomic import fix_for
from rlcas.storage.remote import address_of, local, publish

DESCRIPTION = "Long-tailed image classification: agents dose synthetic images, class by class."
INTERRUPTED = "interrupted; `rlcas resume DIR` goes on, of a sweep `rlcas sweep --resume DIR`"

ALL_COMMANDS: dict[str, Command] = {
    **COMMANDS,
    "submit": Command("run another command as a job on a Ray cluster", submit, own=submit_arguments),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 success, 2 what the user got wrong, 1 the rest."""
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
        mend = fix_for(error)
        if mend is None:
            raise
        print(f"rlcas: {error}: {mend}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"rlcas: {interrupt if interrupt.args else INTERRUPTED}", file=sys.stderr)
        return 130


def _act(command: Command, arguments: argparse.Namespace) -> int:
    """Do what a command does; a run's address stands for a local folder meanwhile."""
    if command.folder is None or address_of(arguments.folder) is None:
        return command.action(arguments)
    arguments.folder = local(arguments.folder, without=command.without)
    status = command.action(arguments)
    publish(arguments.folder)
    return status


def _overview(words: list[str]) -> int:
    """Answer `--help`, `--version` and unknown commands."""
    from rlcas import __version__

    width = max(map(len, ALL_COMMANDS))
    listing = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in ALL_COMMANDS.items())
    if words in (["--version"], ["-V"]):
        print(f"rlcas {__version__}")
        return 0
    if words and words[0] != "synth":
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
