"""`rlcas submit`: another command, on a Ray cluster."""

from __future__ import annotations

import argparse
import math
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from rlcas.commands.command import ALL, Command, Parser, parse
from rlcas.commands.table import COMMANDS, name_of
from rlcas.credentials import has_credentials, without_credentials
from rlcas.errors import UserError
from rlcas.storage.remote import address_of

WRITTEN = ("--out", "RUN", "--resume")


def submit(arguments: argparse.Namespace) -> int:
    """Check a command here, then run it as a job; the exit status is the job's."""
    from cluster.submit import package
    from cluster.submit import submit as submit_job

    words = arguments.words[arguments.words[:1] == ["--"] :]
    for word in words:
        if has_credentials(word):
            raise UserError(
                f"{without_credentials(word)} holds a password or key, and Ray shows the words of a job: give it by "
                "the environment or the files of the cluster's nodes"
            )
    command, job = _parsed(words)
    working_dir = arguments.working_dir.expanduser().absolute()
    files = package(working_dir)
    check_paths(command, job, working_dir, files)
    return submit_job(
        words,
        arguments.address.rstrip("/"),
        working_dir,
        files,
        num_gpus=arguments.entrypoint_num_gpus,
        wait=not arguments.no_wait,
    )


def submit_arguments(parser: Parser) -> str:
    """Add what `rlcas submit` takes."""
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="a command of rlcas")
    address = "of the cluster's dashboard [http://127.0.0.1:8265]"
    parser.add_argument("--address", default="http://127.0.0.1:8265", metavar="URL", help=address)
    folder = "uploaded but for what its .rayignore and .gitignore name; the command runs there [.]"
    parser.add_argument("--working-dir", type=Path, default=Path(), metavar="DIR", help=folder)
    gpus = "GPUs of the command itself, which trains the synthesiser, beside those of its workers [0]"
    parser.add_argument("--entrypoint-num-gpus", type=_num_gpus, default=0.0, metavar="NUMBER", help=gpus)
    parser.add_argument("--no-wait", action="store_true", help="return when the job is there")
    return "[--address URL] [--working-dir DIR] [--entrypoint-num-gpus NUMBER] [--no-wait] -- COMMAND ..."


def _num_gpus(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of GPUs: write 0 or more")
    return number


def check_paths(
    command: Command, job: argparse.Namespace, working_dir: Path, uploaded: Collection[str]
) -> None:
    """Refuse relative paths with which a job fails, or with which its results would be deleted with it.

    Raises:
        UserError: a file to read is not uploaded, or a folder to write to is not on the cluster's storage.
    """
    places = {*uploaded, *(str(parent) for name in uploaded for parent in PurePosixPath(name).parents)}
    for name, path in _paths(command, job, working_dir):
        if "://" in path or Path(path).expanduser().is_absolute():
            continue
        if name in WRITTEN:
            raise UserError(
                f"{name} {path} is relative, and is deleted with the job: name a folder on storage that the "
                "cluster's nodes share"
            )
        if str(PurePosixPath(path)) not in places:
            raise UserError(
                f"{name} {path} is not among the files that are uploaded from {working_dir}: name its place on the "
                "cluster, or mend .rayignore"
            )


def _parsed(words: list[str]) -> tuple[Command, argparse.Namespace]:
    """Return the job's command and its words parsed, so that a wrong one ends here and not on the cluster."""
    name = name_of(words)
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise UserError(f"{name!r} cannot be submitted: write one of {known} after --")
    return COMMANDS[name], parse(name, COMMANDS[name], words[len(name.split()) :])


def _paths(command: Command, job: argparse.Namespace, working_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield what a command says of files, by the name that it gives them."""
    own = {key: value for key, value in vars(job).items() if key != "given"}
    for key, value in own.items():
        if isinstance(value, Path):
            yield "RUN" if key == "folder" else f"--{key}", address_of(value) or str(value)
    yield from (("IMAGES", image) for image in own.get("images", ()))
    if command.settings == ALL and own.get("resume") is None:
        yield from _setting_paths(job, working_dir)


def _setting_paths(job: argparse.Namespace, working_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield the files and folders of a run's settings; those in a file that only the cluster has are not known."""
    from rlcas.data import check_name
    from rlcas.runs.paths import FOLDER_PREFIX, PATH_PREFIXES
    from rlcas.settings import flags, kinds_of, of, stated

    there = job.config is not None and job.config.is_absolute()
    file = None if there or job.config is None else working_dir / job.config
    settings = stated(given=job.given, file=file)
    of(settings)
    if not (there and "out" not in settings):
        yield "--out", str(settings.get("out") or "runs/")
    if "data" in settings:
        check_name(str(settings["data"]))
    prefix, _, path = str(settings.get("data", "")).partition(":")
    if prefix in PATH_PREFIXES:
        yield "--data", path
    if settings.get("pool"):
        yield "--pool", str(settings["pool"]).removeprefix(FOLDER_PREFIX)
    for key in (flag.key for flag in flags() if Path in kinds_of(flag.key) and flag.key != "out"):
        part: Any = settings
        for name in key.split("."):
            part = part.get(name) or {}
        if part:
            yield f"--{key}", str(part)
