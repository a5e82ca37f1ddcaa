"""`rlcas submit`: another command as a job on a Ray cluster."""

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
"""Arguments that name a folder to write to."""


def submit(arguments: argparse.Namespace) -> int:
    """Check a command, then run it as a job; the exit status is the job's.

    Raises:
        UserError: the command is wrong, or has a password in it.
    """
    from cluster.submit import package
    from cluster.submit import submit as submit_job

    # argparse's REMAINDER keeps a leading --, which is cut: True is 1.
    words = arguments.words[arguments.words[:1] == ["--"] :]
    for word in words:
        if has_credentials(word):
            raise UserError(
                f"{without_credentials(word)} holds a password or key, and Ray shows the words of a job: set it in "
                "the environment or in files of the cluster's nodes"
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
    """Add the arguments of `rlcas submit`."""
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="a command of rlcas")
    address = "address of the cluster's dashboard [http://127.0.0.1:8265]"
    parser.add_argument("--address", default="http://127.0.0.1:8265", metavar="URL", help=address)
    folder = "folder to upload, without what its .rayignore and .gitignore name; the command runs in it [.]"
    parser.add_argument("--working-dir", type=Path, default=Path(), metavar="DIR", help=folder)
    gpus = "GPUs of the command itself, which trains the synthesiser, in addition to those of its workers [0]"
    parser.add_argument("--entrypoint-num-gpus", type=_num_gpus, default=0.0, metavar="NUMBER", help=gpus)
    parser.add_argument("--no-wait", action="store_true", help="return as soon as the job is submitted")
    return "[--address URL] [--working-dir DIR] [--entrypoint-num-gpus NUMBER] [--no-wait] -- COMMAND ..."


def _num_gpus(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GPUs: write 0 or more")
    return number


def check_paths(
    command: Command, job: argparse.Namespace, working_dir: Path, uploaded: Collection[str]
) -> None:
    """Check that the job can read its relative paths and that its results are not deleted with it.

    Args:
        command: the job's command.
        job: its arguments.
        working_dir: the folder that is uploaded.
        uploaded: names of its files that are uploaded.

    Raises:
        UserError: a file to read is not uploaded, or a folder to write to is not on the cluster's storage.
    """
    # A folder that is named is uploaded where a file in it is.
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
                "cluster, or change .rayignore"
            )


def _parsed(words: list[str]) -> tuple[Command, argparse.Namespace]:
    """Return the job's command and its arguments, parsed here so that a wrong one does not fail on the cluster."""
    name = name_of(words)
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise UserError(f"{name!r} cannot be submitted: write one of {known} after --")
    return COMMANDS[name], parse(name, COMMANDS[name], words[len(name.split()) :])


def _paths(command: Command, job: argparse.Namespace, working_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield (argument, path) for every file and folder in a command."""
    own = {key: value for key, value in vars(job).items() if key != "given"}
    for key, value in own.items():
        if isinstance(value, Path):
            # pathlib drops a slash of s3://, without which an address would look like a relative path.
            yield "RUN" if key == "folder" else f"--{key}", address_of(value) or str(value)
    yield from (("IMAGES", image) for image in own.get("images", ()))
    if command.settings == ALL and own.get("resume") is None:
        yield from _setting_paths(job, working_dir)


def _setting_paths(job: argparse.Namespace, working_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield the files and folders in a run's settings; a settings file that only the cluster has cannot be read."""
    from rlcas.data import check_name
    from rlcas.runs.paths import FOLDER_PREFIX, PATH_PREFIXES
    from rlcas.settings import flags, kinds_of, of, stated

    on_cluster = job.config is not None and job.config.is_absolute()
    file = None if on_cluster or job.config is None else working_dir / job.config
    settings = stated(given=job.given, file=file)
    # For the errors that it raises.
    of(settings)
    if not (on_cluster and "out" not in settings):
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
