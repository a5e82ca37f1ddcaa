"""Checks of a documented command without executing it; a fault is an AssertionError."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from doc_pages import ROOT

from cluster.runs.checks import check_shares, check_training
from cluster.sweeps import plan
from rlcas import settings
from rlcas.cli import ALL_COMMANDS, main
from rlcas.commands.command import parse
from rlcas.comparison.folder import row_names
from rlcas.config import RunConfig
from rlcas.data import DATASETS, PREFIXES
from rlcas.errors import UserError
from rlcas.methods import METHODS
from rlcas.registry import lookup
from synth.generators import GENERATORS
from synth.ldm.diffusion import SOLVERS
from synth.sketch import SKETCHES

ELLIPSIS = "…"
"""Stands for what the reader fills in."""
OPERATORS = set("();<>|&")
KEYWORDS = ("do", "then", "else")
UNCHECKED = ("for", "while", "if", "done", "fi", "case", "esac")
REPOSITORY_FILE = re.compile(r"^(?:rlcas|synth|envs|cluster|tests|benchmarks|docs)/[\w/.-]+\.\w+$")
"""A word that names a file of the repository; folders of these names may be a run's."""


def check_script(text: str) -> None:
    """Check shell code: its syntax, then each of its commands."""
    syntax = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert syntax.returncode == 0, syntax.stderr
    for words in commands_in(text):
        check_command(words)


def typed_in(session: str) -> str:
    """Return what is typed in a session: the lines after `$ `, with those that they continue on."""
    typed: list[str] = []
    for line in session.splitlines():
        if line.startswith("$ ") or (typed and typed[-1].endswith("\\")):
            typed.append(line.removeprefix("$ "))
    assert typed, "nothing is typed in it: no line starts with `$ `"
    return "\n".join(typed)


def commands_in(text: str) -> Iterator[list[str]]:
    """Yield the words of each command, without redirections, assignments and the shell's own keywords."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="".join(OPERATORS))
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= OPERATORS and not set(word) & {"<", ">"}:
                yield from _trimmed(words)
                words = []
            else:
                words.append(word)


def check_command(words: Sequence[str]) -> None:
    """Check one command, the files that it names, and what it hands on: `ssh worker 'ray start …'`."""
    program, *arguments = words
    assert program in PROGRAMS, f"{program}: tests/doc_commands.py does not know how to check it"
    PROGRAMS[program](arguments)
    for word in arguments:
        assert not REPOSITORY_FILE.match(word) or (ROOT / word).exists(), f"{word} is not in the repository"
        if re.search(r"(?:^|&& |; )(?:rlcas|ray) ", word):
            check_script(word)


def check_mention(text: str) -> None:
    """Check a command in running text, which may be cut short: its name, and that it takes the flags named."""
    name = _name_of(text.split()[1:])
    for word in text.split():
        flag = word.partition("=")[0]
        if flag.startswith("--") and ELLIPSIS not in flag:
            assert flag in options_of(name), f"`rlcas {name}` has no {flag}"


@functools.cache
def options_of(name: str) -> frozenset[str]:
    """Return the options of a command of rlcas."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main([*name.split(), "--help"])
    return frozenset(re.findall(r"--[\w.-]+", printed.getvalue()))


def check_settings(stated: dict[str, Any]) -> None:
    """Check that settings exist, are valid, and name existing things."""
    check_names(settings.of(stated))


def check_names(config: RunConfig) -> None:
    """Look up every name that a run would need."""
    known = (":" in config.data and config.data.partition(":")[0] in PREFIXES) or config.data in {
        *DATASETS,
        ELLIPSIS,
    }
    assert known, f"data {config.data}"
    check_training(config)
    lookup(config.synth.sketch, SKETCHES, "synth.sketch")
    check_shares(config, lookup(config.synth.generator, GENERATORS, "synth.generator"))
    lookup(config.synth.generation.solver, SOLVERS, "synth.generation.solver")


def _trimmed(words: list[str]) -> Iterator[list[str]]:
    words = list(itertools.takewhile(lambda word: not set(word) <= OPERATORS, words))
    while words and (words[0] in KEYWORDS or re.match(r"^\w+=", words[0])):
        del words[0]
    if words and words[0] not in UNCHECKED:
        yield words


def _name_of(words: Sequence[str]) -> str:
    name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in ALL_COMMANDS), None)
    assert name, f"rlcas {' '.join(words)}: no such command"
    return name


def _check_rlcas(words: list[str]) -> None:
    name = _name_of(words)
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        try:
            arguments = parse(name, ALL_COMMANDS[name], words[len(name.split()) :])
        except SystemExit:
            raise AssertionError(printed.getvalue()) from None
    try:
        _check_given(name, settings.stated(given=arguments.given))
    except UserError as error:
        raise AssertionError(str(error)) from None


def _check_given(name: str, stated: dict[str, Any]) -> None:
    check_settings(stated)
    if name == "sweep":
        plan.plan(stated)
    if name == "compare":
        for row in row_names(settings.of_comparison(stated)):
            lookup(row, METHODS, "compare.methods")


def _check_python(words: list[str]) -> None:
    """A script of ours with flags that it has, or a module."""
    if words[:2] == ["-m", "rlcas"]:
        return _check_rlcas(words[2:])
    script = ROOT / words[0]
    assert script.is_file(), f"{words[0]} is not in the repository"
    source = script.read_text() + (ROOT / "benchmarks" / "common.py").read_text()
    for word in words[1:]:
        assert not word.startswith("--") or f'"{word.partition("=")[0]}"' in source, f"{words[0]} has no {word}"
    return None


def _check_torchrun(words: list[str]) -> None:
    assert words[0] == "--nproc-per-node" and words[2] == "-m", words
    _check_python(words[2:])


def _check_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(words) <= set(targets), f"make {' '.join(words)}: targets are {', '.join(targets)}"


def _check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in re.findall(r"\[([\w,-]+)\]", " ".join(words)):
        assert set(named.split(",")) <= set(extras), f"{named}: extras are {', '.join(extras)}"


def _check_ray(words: list[str]) -> None:
    """The subcommand and its options, by Ray's own parser; then what it starts."""
    import click
    from ray.scripts.scripts import cli

    command: click.Command = cli
    while isinstance(command, click.Group):
        assert words and words[0] in command.commands, f"ray has no {' '.join(words[:1])} in {command.name}"
        command, *words = [command.commands[words[0]], *words[1:]]
    own, dashes, started = _split(words, "--")
    try:
        command.make_parser(click.Context(command)).parse_args(list(own))
    except click.UsageError as error:
        raise AssertionError(f"ray {command.name}: {error.message}") from None
    if dashes:
        check_command(started)


def _check_script_file(words: list[str]) -> None:
    assert (ROOT / words[0]).is_file(), f"{words[0]} is not in the repository"


def _split(words: Sequence[str], at: str) -> tuple[Sequence[str], bool, Sequence[str]]:
    place = words.index(at) if at in words else len(words)
    return words[:place], place < len(words), words[place + 1 :]


def _nothing(words: list[str]) -> None:
    """A program of others: only the files that its arguments name are checked."""


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "rlcas": _check_rlcas,
    "python": _check_python,
    "torchrun": _check_torchrun,
    "make": _check_make,
    "pip": _check_pip,
    "ray": _check_ray,
    "sh": _check_script_file,
    "bash": _check_script_file,
    "sbatch": _check_script_file,
    **dict.fromkeys(
        (
            ".",
            "cat",
            "cd",
            "chmod",
            "cp",
            "curl",
            "docker",
            "export",
            "git",
            "kubectl",
            "ls",
            "mkdir",
            "scp",
            "ssh",
            "tensorboard",
        ),
        _nothing,
    ),
}
"""How the words after a program are checked."""
