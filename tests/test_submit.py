"""`rlcas submit`: what is uploaded, what is refused before, and how a job's end is passed on."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from by_hand import environment_with_token, free_port, head, new_folder

from cluster import submit as jobs
from rlcas.cli import main
from rlcas.errors import UserError

ROOT = Path(__file__).parents[1]
NOBODY = "http://127.0.0.1:9"  # the port of discard: nothing listens there


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a working directory with what is wanted on the cluster, and what is not."""
    files = {
        "first.yaml": "seed: 1\n",
        "images/äpfel.png": "x" * 1000,
        "images/raw.npz": "y" * 10,
        "runs/old/model.bin": "z" * 10,
        "deep/.rayignore": "*.log\n",
        "deep/a.log": "l",
        "deep/a.txt": "t",
        "secret.env": "TOKEN",
        ".git/config": "g",
        ".venv/pyvenv.cfg": "v",
        ".rayignore": "*.npz\n/runs/\n",
        ".gitignore": "*.env\n",
    }
    for name, text in files.items():
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "work"


def test_a_package_leaves_out_what_the_ignore_files_name(folder: Path) -> None:
    assert set(jobs.package(folder)) == {
        "first.yaml", "images/äpfel.png", "deep/.rayignore", "deep/a.txt", ".rayignore", ".gitignore",
    }  # fmt: skip


def test_gitignore_does_not_count_where_ray_is_set_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
    assert "secret.env" in jobs.package(folder)


def test_the_size_that_is_checked_is_that_of_rays_own_package(folder: Path, tmp_path: Path) -> None:
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    packed = tmp_path / "package.zip"
    create_package(str(folder), packed, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    files = jobs.package(folder)
    assert set(zipfile.ZipFile(packed).namelist()) == set(files)
    assert packed.stat().st_size == sum(files.values()) + jobs.ZIP_BYTES


def test_a_package_of_the_job_servers_limit_is_refused_and_one_byte_less_is_not() -> None:
    limit = 100 * 1024**2
    jobs.check_size({"a": limit - jobs.ZIP_BYTES - 1}, Path("work"))
    with pytest.raises(
        UserError, match=r"--working-dir work is 100 MiB, but Ray's job server takes less than 100 MiB"
    ):
        jobs.check_size({"a": limit - jobs.ZIP_BYTES}, Path("work"))


def test_a_package_that_is_too_large_is_refused_before_anyone_is_asked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "films").mkdir()
    for name, size in {"films/a": 60 << 20, "films/b": 50 << 20, "big.tif": 1 << 20}.items():
        with (folder / name).open("wb") as file:
            file.truncate(size)
    assert submit(folder, "run", "--out", "/shared/runs/a") == 2
    assert (
        f"leave out films (110 MiB), big.tif (1 MiB), images (0 MiB), by a line each in {folder}/.rayignore"
        in (capsys.readouterr().err)
    )


def test_a_clone_of_rlcas_is_small_and_keeps_all_its_modules() -> None:
    files = jobs.package(ROOT)
    assert sum(files.values()) < 10e6
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("rlcas", "synth", "envs", "cluster")
        for path in (ROOT / package).rglob("*.py")
    }
    assert sources <= set(files)
    assert not any(name.startswith(("runs/", "tests/", ".git/", ".venv/")) for name in files)


def submit(folder: Path, *words: str, **options: str) -> int:
    """Run the command against an address where nobody is."""
    flags = [word for key, value in options.items() for word in (f"--{key}", value)]
    return main(["submit", "--address", NOBODY, "--working-dir", str(folder), *flags, "--", *words])


OUT = ("--out", "/shared/runs/a")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "'' cannot be submitted: write one of demo, doctor, run"),
        (["rnu"], "'rnu' cannot be submitted: write one of demo, doctor, run"),
        (["submit", "--", "run"], "'submit' cannot be submitted"),
        (["run"], "--out runs/ is relative, and is deleted with the job: name a folder on storage that"),
        (["run", "--out", "runs/a"], "--out runs/a is relative, and is deleted with the job"),
        (["compare", "--out", "runs/a"], "--out runs/a is relative"),
        (["resume", "runs/a"], "RUN runs/a is relative"),
        (
            ["resume", "s3://KEY:hunter2@b/x"],
            "s3://***@b/x holds a password or key, and Ray shows the words of",
        ),
        (["doctor", "--cluster", "--data", "npz:s3://KEY:hunter2@b/x"], "npz:s3://***@b/x holds a password"),
        (["sweep", "--resume", "runs/a"], "--resume runs/a is relative"),
        (["export", "/shared/runs/a", "--out", "model.onnx"], "--out model.onnx is relative"),
        (
            ["run", *OUT, "--data", "npz:images/raw.npz"],
            "--data images/raw.npz is not among the files that are",
        ),
        (["run", *OUT, "--data", "folder:gone"], "--data gone is not among the files that are uploaded"),
        (["train", *OUT, "--pool", "folder:gone"], "--pool gone is not among the files"),
        (
            ["run", *OUT, "--synth.sketch_weights", "w.pth"],
            "--synth.sketch_weights w.pth is not among the files",
        ),
        (["predict", "/shared/runs/a", "gone.png", "--out", "/shared/a.csv"], "IMAGES gone.png is not among"),
        (["run", *OUT, "--config", "gone.yaml"], "--config gone.yaml is not among the files"),
        (["run", *OUT, "--seed", "x"], "seed is 'x': input should be a valid integer"),
        (["run", *OUT, "--data", "brestmnist"], "data 'brestmnist' is unknown: use npz:PATH"),
    ],
)
def test_a_command_that_would_fail_on_the_cluster_is_refused_here(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(folder, *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_setting_that_is_unknown_is_refused_here(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        submit(folder, "run", *OUT, "--sampler.kk", "3")
    assert caught.value.code == 2 and "unknown setting sampler.kk" in capsys.readouterr().err


def test_a_working_directory_that_is_not_a_folder_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(folder / "first.yaml", "run", *OUT) == 2
    assert "first.yaml is not a folder: name the one that the command shall run in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (b"\xffad", b"", "holds 'sub/\\udcffad', a name that is not UTF-8: rename it"),
        (b".rayignore", b"\xff", "has a .gitignore or .rayignore that is not UTF-8: correct or remove it"),
    ],
    ids=["name", "ignore_file"],
)
def test_a_working_directory_that_ray_cannot_pack_is_refused(
    name: bytes, content: bytes, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "sub").mkdir()
    Path(os.fsdecode(bytes(folder / "sub") + b"/" + name)).write_bytes(content)
    assert submit(folder, "run", *OUT) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("number", ["-3", "nan", "inf", "x"])
def test_a_number_of_gpus_that_is_none_is_refused(
    number: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["submit", "--working-dir", str(folder), "--entrypoint-num-gpus", number, "--", "run", *OUT])
    assert caught.value.code == 2 and "--entrypoint-num-gpus" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["run", *OUT],
        ["run", *OUT, "--data", "folder:images", "--config", "first.yaml"],
        ["run", *OUT, "--data", "folder:./images/", "--pool", "/shared/pool"],
        ["run", "--config", "/shared/settings.yaml"],
        ["run", "--out", "s3://bucket/runs/a"],
        ["synth", "sample", "/shared/runs/a"],
        ["predict", "/shared/runs/a", "images", "--out", "/shared/a.csv"],
        ["doctor", "--cluster"],
    ],
)
def test_what_can_be_judged_here_is_passed_on_to_the_cluster(
    words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert submit(folder, *words) == 2
    assert "rlcas submit needs Ray's job client, which is not installed: pip install 'rlcas[cluster]'" in (
        capsys.readouterr().err
    )


def test_an_address_without_http_is_refused(folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"--address 'head:8265' is not a dashboard's address: write it as http://HOST"
    ):
        jobs.submit(["demo"], "head:8265", folder, {})


needs_job_server = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp_cors") is None, reason="ray[default] is not installed: no job server"
)


@needs_job_server
def test_a_run_at_an_address_is_submitted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(folder, "resume", "s3://bucket/run") == 2
    assert f"--address {NOBODY} does not answer" in capsys.readouterr().err


@needs_job_server
@pytest.mark.parametrize("address", ["http://[::1", "http://127.0.0.1:99999"])
def test_what_is_not_an_address_is_refused(address: str, folder: Path) -> None:
    with pytest.raises(UserError, match=r"is not that of Ray's dashboard \(.*\): write it as http://HOST:8265"):
        jobs.submit(["demo"], address, folder, {})


@needs_job_server
def test_an_address_that_does_not_answer_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(folder, "run", *OUT) == 2
    assert f"--address {NOBODY} does not answer: check that the head runs and has ray[default]" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("STOPPED", None, 1),
    ],
)
def test_the_jobs_exit_status_is_a_shells(status: str, code: int | None, expected: int) -> None:
    from ray.dashboard.modules.job.pydantic_models import JobDetails

    details: Any = {"type": "SUBMISSION", "status": status, "entrypoint": "rlcas run", "driver_exit_code": code}
    assert jobs.exit_status(JobDetails(**details, message="ended")) == expected


@dataclass(frozen=True)
class JobServer:
    """A head with a dashboard."""

    environment: dict[str, str]
    address: str
    shared: Path


@pytest.fixture(scope="module")
def job_server() -> Iterator[JobServer]:
    environment, port = environment_with_token(), free_port()
    options = ("--include-dashboard=true", f"--dashboard-port={port}", "--dashboard-host=127.0.0.1")
    with new_folder() as folder, head(folder, environment, *options):
        yield JobServer(environment, f"http://127.0.0.1:{port}", folder)


def submitted(server: JobServer, folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `rlcas submit` as a user does; RAY_ADDRESS, which Ray's own client would follow, leads nowhere."""
    command = [
        sys.executable,
        "-m",
        "rlcas",
        "submit",
        "--address",
        server.address,
        "--working-dir",
        str(folder),
    ]
    environment = {**server.environment, "RAY_ADDRESS": "127.0.0.1:9", **more}
    return subprocess.run(
        [*command, "--", *words], env=environment, capture_output=True, text=True, timeout=300
    )


@needs_job_server
@pytest.mark.slow
def test_a_job_is_at_work_on_the_cluster_that_it_was_submitted_to(job_server: JobServer, folder: Path) -> None:
    done = submitted(job_server, folder, "doctor", "--cluster", "--out", str(job_server.shared))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(head): Python 3." in done.stdout
    assert job_server.environment["RAY_AUTH_TOKEN"] not in done.stdout + done.stderr


@needs_job_server
@pytest.mark.slow
def test_the_token_is_sent_where_ray_alone_would_not_send_it(job_server: JobServer, folder: Path) -> None:
    known = {name: value for name, value in job_server.environment.items() if name != "RAY_AUTH_MODE"}
    server = dataclasses.replace(job_server, environment=known)
    done = submitted(server, folder, "run", *OUT, "--classifier.loss", "mine:gone")
    assert "cannot be imported: No module named 'mine'" in done.stdout, done.stdout + done.stderr


@needs_job_server
@pytest.mark.slow
def test_a_job_that_fails_finds_what_was_uploaded_and_its_exit_status_is_passed_on(
    job_server: JobServer, folder: Path
) -> None:
    (folder / "mine.py").write_text("known = 1\n")
    done = submitted(job_server, folder, "run", *OUT, "--classifier.loss", "mine:unknown")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "uploading 7 files" in done.stdout and "module 'mine' has no attribute 'unknown'" in done.stdout


@needs_job_server
@pytest.mark.slow
def test_the_launch_script_follows_a_job_and_passes_its_exit_status_on(
    job_server: JobServer, folder: Path, tmp_path: Path
) -> None:
    """The head is this machine, so that the port which ssh would forward is there already."""
    (tmp_path / "ssh").write_text("#!/bin/sh\n")
    (tmp_path / "ssh").chmod(0o755)
    environment = {
        **job_server.environment,
        "PATH": f"{tmp_path}{os.pathsep}{job_server.environment['PATH']}",
        "RLCAS_VENV": str(Path(sys.executable).parent.parent),
        "LOCAL_PORT": job_server.address.rpartition(":")[2],
    }
    words = ["sh", ROOT / "cluster/launch/submit.sh", "head", "run", *OUT, "--classifier.loss", "mine:gone"]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "cannot be imported: No module named 'mine'" in done.stdout


@needs_job_server
@pytest.mark.slow
def test_a_job_server_that_refuses_the_token_is_reported(job_server: JobServer, folder: Path) -> None:
    done = submitted(job_server, folder, "run", *OUT, RAY_AUTH_TOKEN="0" * 64)
    assert done.returncode == 2
    assert f"--address {job_server.address} refuses the token" in done.stderr
