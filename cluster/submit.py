"""Running a command of rlcas as a job on a Ray cluster: its package, logs and exit status."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.ray_constants import (
    DASHBOARD_CLIENT_MAX_SIZE,
    RAY_API_SERVER_ADDRESS_ENVIRONMENT_VARIABLE,
    RAY_RUNTIME_ENV_IGNORE_GITIGNORE,
    get_runtime_env_default_excludes,
)
from ray._private.runtime_env import packaging
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from cluster.runtime.connection import quiet_ray
from rlcas.console import say
from rlcas.errors import RunError, UserError, first_line

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

POLL_SECONDS = 1.0
MIB = 1 << 20
NUM_LARGEST = 3
ZIP_BYTES, ZIP_BYTES_A_FILE = 22, 76
"""Overhead of a zip file: its end, and for each file a local and a central header, both with the file's name."""


def submit(
    words: Sequence[str],
    address: str,
    working_dir: Path,
    files: Mapping[str, int],
    *,
    num_gpus: float = 0.0,
    wait: bool = True,
) -> int:
    """Run `rlcas WORDS` as a job and follow its logs; return its exit status, or 0 at once without `wait`.

    Args:
        words: the command and its arguments.
        address: http://HOST:PORT of the cluster's dashboard.
        working_dir: the folder that is uploaded, where the job runs.
        files: what Ray uploads of it, as `package` returns it.
        num_gpus: GPUs of the command itself, beside those of its workers; it runs on a node that has them.
        wait: whether to follow the job to its end.

    Raises:
        UserError: the package is too large, or the cluster does not answer or refuses the token.
        RunError: the connection was lost while the job ran.
    """
    check_size(files, working_dir)
    client = _connect(address)
    say(f"uploading {len(files)} files of {working_dir} ({sum(files.values()) / MIB:.1f} MiB)")
    environment = {"working_dir": str(working_dir)}
    try:
        job = client.submit_job(
            entrypoint=shlex.join(["rlcas", *words]),
            runtime_env=environment,
            entrypoint_num_gpus=num_gpus or None,
        )
    except (RuntimeError, OSError) as error:
        raise RunError(f"{address} refuses the job: {first_line(error)}") from error
    at = f"--address {address}"
    say(f"job {job}: `ray job logs {at} --follow {job}` shows it, `ray job stop {at} {job}` ends it")
    return exit_status(_followed(client, job)) if wait else 0


def package(working_dir: Path) -> dict[str, int]:
    """Return what Ray uploads of a folder: the bytes that each file takes in the package, by its path in it.

    Left out is what .gitignore and .rayignore name, and what Ray always leaves out (.git, .venv).

    Raises:
        UserError: `working_dir` is not a folder, or has names or ignore files that are not UTF-8.
    """
    if not working_dir.is_dir():
        raise UserError(
            f"--working-dir {working_dir} is not a folder: name the one that the command shall run in"
        )
    files: dict[str, int] = {}

    def add(path: Path) -> None:
        if path.is_file():
            name = path.relative_to(working_dir).as_posix()
            files[name] = path.stat().st_size + ZIP_BYTES_A_FILE + 2 * len(name.encode())

    silent = logging.getLogger(__name__)
    silent.disabled = True  # Ray would log what is raised below as one line
    try:
        # Ray's own private walk (2.60): only it leaves out exactly what Ray will leave out.
        packaging._dir_travel(
            working_dir,
            [packaging._get_excludes(working_dir, get_runtime_env_default_excludes())],
            add,
            include_gitignore=os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1",
            logger=silent,
        )
    except UnicodeEncodeError as error:
        raise UserError(
            f"--working-dir {working_dir} holds {error.object!a}, a name that is not UTF-8: rename it, or leave it out "
            "by a line in .rayignore"
        ) from None
    except UnicodeDecodeError:
        raise UserError(
            f"--working-dir {working_dir} has a .gitignore or .rayignore that is not UTF-8: correct or remove it"
        ) from None
    return files


def check_size(files: Mapping[str, int], working_dir: Path) -> None:
    """Refuse a package that the job server would refuse only after its upload.

    Raises:
        UserError: it is too large; the line names the largest parts.
    """
    num_bytes = sum(files.values()) + ZIP_BYTES
    # aiohttp, which receives it, refuses the limit itself too.
    if num_bytes < DASHBOARD_CLIENT_MAX_SIZE:
        return
    parts = Counter[str]()
    for name, size in files.items():
        parts[name.partition("/")[0]] += size
    largest = ", ".join(f"{name} ({size / MIB:.0f} MiB)" for name, size in parts.most_common(NUM_LARGEST))
    raise UserError(
        f"--working-dir {working_dir} is {num_bytes / MIB:.0f} MiB, but Ray's job server takes less than "
        f"{DASHBOARD_CLIENT_MAX_SIZE / MIB:.0f} MiB: leave out {largest}, by a line each in {working_dir}/.rayignore"
    )


def exit_status(job: JobDetails) -> int:
    """Return the exit status of a job's command as a shell gives it; 1 where it was stopped or never ran."""
    code = job.driver_exit_code or 0
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if code == 0:
        message, _, _ = (job.message or "").partition("\n")  # Ray's own traceback may follow
        say(f"job {job.status}: {message}")
        return 1
    # A negative code is that of a signal, as Python's subprocess gives it.
    return code if code > 0 else 128 - code


def _connect(address: str) -> JobSubmissionClient:
    if not address.startswith(("http://", "https://")):
        raise UserError(f"--address {address!r} is not a dashboard's address: write it as http://HOST:8265")
    # Ray's job client needs it, and Ray without its extra `default` does not install it.
    if importlib.util.find_spec("aiohttp") is None:
        raise UserError(
            "rlcas submit needs Ray's job client, which is not installed: pip install 'rlcas[cluster]'"
        )
    from ray.job_submission import JobSubmissionClient

    quiet_ray()
    os.environ[RAY_API_SERVER_ADDRESS_ENVIRONMENT_VARIABLE] = address  # else RAY_ADDRESS would take precedence
    # Ray's job client sends the token only where RAY_AUTH_MODE is token: this sets it, unless it is set, where a token
    # exists. A head that asks for none ignores it.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        return JobSubmissionClient(address)
    except ConnectionError as error:
        raise UserError(
            f"--address {address} does not answer: check that the head runs and has ray[default]; from outside, "
            "ssh -L 8265:127.0.0.1:8265 HEAD makes it http://127.0.0.1:8265"
        ) from error
    except AuthenticationError as error:
        raise UserError(
            f"--address {address} refuses the token ({first_line(error)}): set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
        ) from error
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"--address {address} is not that of Ray's dashboard ({first_line(error)}): write it as http://HOST:8265"
        ) from error


def _followed(client: JobSubmissionClient, job: str) -> JobDetails:
    """Print a job's logs as they come, and return how it ended."""
    try:
        asyncio.run(_print_logs(client, job))
        while not (details := client.get_job_info(job)).status.is_terminal():
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        raise RunError(f"interrupted, but job {job} continues") from None
    except (OSError, RuntimeError) as error:
        raise RunError(f"lost the connection to job {job}, which continues ({first_line(error)})") from error
    return details


async def _print_logs(client: JobSubmissionClient, job: str) -> None:
    async for text in client.tail_job_logs(job):
        print(text, end="", flush=True)
