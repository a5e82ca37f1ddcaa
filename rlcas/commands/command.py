"""The declaration of a command, and the parsing of its arguments: dotted flags of settings, and its own."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rlcas.errors import UserError

if TYPE_CHECKING:
    from rlcas.settings import Flag

ALL = ("",)


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line and whose flags are never abbreviated."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        self.exit(2, f"rlcas: {message}\n")


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its line in the help, its action and its arguments."""

    help: str
    action: Callable[[argparse.Namespace], int]
    """Gets `given` (dotted key -> text of the settings) and the arguments below; returns the exit status."""
    settings: tuple[str, ...] = ()
    """Prefixes of the settings that it takes; ("",) is all of them, with --config and --dry-run."""
    folder: str | None = None
    """Help of the positional argument for a run's folder; None: the command has no such argument."""
    without: tuple[str, ...] = ()
    """Parts of that folder that it does not need, which are not downloaded if the folder is an address."""
    own: Callable[[Parser], str] | None = None
    """Adds the command's own arguments to its parser; returns them as the usage line shows them."""


def parse(name: str, command: Command, words: Sequence[str]) -> argparse.Namespace:
    """Return the parsed words after the command's name; exit with one line and status 2 if they are wrong."""
    parser = Parser(prog=f"rlcas {name}", description=f"{command.help[0].upper()}{command.help[1:]}.")
    parser.set_defaults(given={})
    takes = ["RUN"] * bool(command.folder)
    if command.folder:
        parser.add_argument("folder", type=Path, metavar="RUN", help=command.folder)
    if command.settings == ALL:
        parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with the same settings")
        parser.add_argument(
            "--dry-run", action="store_true", help="print settings, demand and estimate; start nothing"
        )
    if command.own:
        takes.append(command.own(parser))
    takes += ["[--SETTING VALUE ...]"] * bool(command.settings)
    # argparse's own usage would list every setting.
    parser.usage = " ".join(["rlcas", name, *takes])
    if not command.settings:
        return parser.parse_args(words)
    _add_settings(parser, command.settings)
    # Known, as an unknown setting gets an error of ours with the most similar one; intermixed, so that RUN may
    # stand between flags.
    arguments, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        parser.error(_unknown(name, command, unknown[0].partition("=")[0].lstrip("-")))
    return arguments


def check_resumes_alone(arguments: argparse.Namespace, what: str, allowed: Collection[str] = ()) -> None:
    """Check that --resume, which uses the settings in the folder, has no settings with it but the allowed ones.

    Raises:
        UserError: it has.
    """
    given = [key for key in arguments.given if key not in allowed]
    if arguments.resume is not None and (given or arguments.config or arguments.dry_run):
        raise UserError(
            f"--resume {arguments.resume} continues with the {what}'s own settings: leave out --"
            f"{next(iter(given), 'config' if arguments.config else 'dry-run')}"
        )


def add_flags(group: Any, flags: Sequence[Flag], *aliases: str) -> None:
    """Add settings as dotted flags to a group of a parser."""
    for flag in flags:
        # argparse formats help texts with %.
        text = f"{flag.help} [{flag.default}]".replace("%", "%%")
        # SUPPRESS: only what is on the command line may be in the namespace, as defaults come from preset and
        # file.
        options: dict[str, Any] = {"dest": flag.key, "action": _Given, "default": argparse.SUPPRESS}
        group.add_argument(*aliases, f"--{flag.key}", metavar="VALUE", help=text, **options)


class _Given(argparse.Action):
    """Collects the settings on the command line in one dict, `given`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        # A new dict: the old one is the parser's default.
        namespace.given = {**namespace.given, self.dest: values}


class Gathered(argparse.Action):
    """Collects KEY=VALUE from every use of a flag in one dict of `given`."""

    form: str
    """Error message for a part without =: what to write."""
    again: str
    """End of the error message for a repeated key."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Add the parts of one use of the flag."""
        gathered = dict(namespace.given.get(self.dest, {}))
        for part in self.parts(str(values)):
            key, equals, text = part.partition("=")
            if not equals:
                parser.error(f"{option_string} {part}: {self.form}")
            if key in gathered:
                parser.error(f"{option_string} {part}: {key} {self.again}")
            gathered[key] = text
        namespace.given = {**namespace.given, self.dest: gathered}

    def parts(self, values: str) -> list[str]:
        """Return each KEY=VALUE of one use."""
        return [values]


def _add_settings(parser: Parser, starts: tuple[str, ...]) -> None:
    """Add the settings with one of these prefixes, a group of arguments for each section."""
    # Inside, as are all imports of settings: `rlcas --help` needs no pydantic.
    from rlcas.settings import flags

    groups: dict[str, Any] = {}
    for flag in flags():
        if not flag.key.startswith(starts):
            continue
        section = flag.key.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(f"{section} settings" if section else "settings")
        add_flags(groups[section], [flag])


def _unknown(name: str, command: Command, key: str) -> str:
    """Return the error message for a setting that the command does not take."""
    from rlcas.config import FileConfig
    from rlcas.settings import flags, unknown_setting

    if key not in (flag.key for flag in flags(FileConfig)):
        return unknown_setting(key)
    if command.settings == ALL:
        return f"{key} is a setting of `rlcas {key.partition('.')[0]}` alone: leave it out"
    return f"{key} is not a setting of `rlcas {name}`, which keeps the run's own: see `rlcas {name} --help`"
