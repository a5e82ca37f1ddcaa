"""A Ray that could not start for its folders is found before anything is made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray
import small_run
from ray._common.utils import get_default_ray_temp_dir
from ray._private.utils import validate_socket_filepath

from cluster.runtime.connection import check_can_start
from rlcas import cli
from rlcas.doctor import ray_folders
from rlcas.doctor.ray_folders import longest_socket, ray_obstacle, temporary_folder
from rlcas.errors import UserError

FILE = Path("/dev/null")
"""A file, in which root too can make nothing."""


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_ray_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process may have started Ray, and a Ray that runs needs no folders any more."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


@pytest.mark.parametrize("variables", [{}, {"TMPDIR": "/tmp/a"}, {"TMPDIR": "/tmp/a", "RAY_TMPDIR": "/tmp/b"}])
def test_the_folder_is_the_one_that_ray_takes(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(temporary_folder(os.environ)) == get_default_ray_temp_dir()


@pytest.mark.parametrize("over", [0, 1])
def test_a_path_too_long_for_sockets_is_one_that_ray_refuses(over: int, tmp_path: Path) -> None:
    room = ray_folders.MAX_SOCKET_BYTES - len(os.fsencode(longest_socket(Path("/tmp/ray"))))
    folder = Path("/tmp") / ("é" * ((room - 1) // 2) + "e" * ((room - 1) % 2) + "e" * over)
    socket, obstacle = longest_socket(folder / "ray"), ray_obstacle({"RAY_TMPDIR": str(folder)}, tmp_path)
    if over:
        with pytest.raises(OSError, match="cannot exceed"):
            validate_socket_filepath(str(socket))
        assert obstacle is not None
        limit = ray_folders.MAX_SOCKET_BYTES
        assert obstacle.found == (
            f"its sockets in {folder}/ray have paths of {limit + 1} bytes, and the system takes {limit}"
        )
        assert obstacle.fix == "set RAY_TMPDIR to a folder with a shorter path, such as RAY_TMPDIR=/tmp"
    else:
        validate_socket_filepath(str(socket))
        assert obstacle is None


@pytest.mark.parametrize(
    ("environment", "home", "found", "fix"),
    [
        (
            {"RAY_TMPDIR": f"{FILE}/x"},
            "/tmp",
            f"{FILE}/x/ray, for its sockets and logs, cannot be",
            "RAY_TMPDIR to",
        ),
        (
            {},
            f"{FILE}/x",
            f"{FILE}/x/.ray, for its token, cannot be written to",
            "set HOME to a folder that can be",
        ),
        (
            {"RAY_AUTH_TOKEN_PATH": "/nowhere"},
            "/tmp",
            "RAY_AUTH_TOKEN_PATH /nowhere cannot be read (No such",
            "unset",
        ),
        (
            {"RAY_AUTH_TOKEN_PATH": f"{FILE}"},
            "/tmp",
            f"RAY_AUTH_TOKEN_PATH {FILE} cannot be read (it is empty",
            "unset",
        ),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_named_with_the_way_out(
    environment: dict[str, str], home: str, found: str, fix: str
) -> None:
    obstacle = ray_obstacle({"RAY_TMPDIR": "/tmp", **environment}, Path(home))
    assert obstacle is not None and obstacle.found.startswith(found) and fix in obstacle.fix


def test_no_home_is_needed_where_the_token_is_given_or_not_asked_for(tmp_path: Path) -> None:
    token, home = tmp_path / ".ray/auth_token", FILE / "x"
    token.parent.mkdir()
    token.write_text("secret")
    for given in ({"RAY_AUTH_TOKEN": "secret"}, {"RAY_AUTH_MODE": "disabled"}):
        assert ray_obstacle({"RAY_TMPDIR": "/tmp", **given}, home) is None
    assert ray_obstacle({"RAY_TMPDIR": "/tmp", "RAY_AUTH_TOKEN_PATH": str(token)}, home) is None
    assert ray_obstacle({"RAY_TMPDIR": "/tmp"}, tmp_path) is None


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "--dry-run"),
        ("run", "--cluster.episode_runner", "in_process", "--cluster.sampling_workers", "2", "--dry-run"),
        ("compare", "--methods", "ce"),
        ("compare", "--methods", "ce", "--dry-run"),
        ("sweep", "--over", "sampler.k=1,2"),
        ("sweep", "--over", "sampler.k=1,2", "--dry-run"),
    ],
)
def test_commands_refuse_it_before_anything_is_made(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small_run.write_npz(tmp_path / "shapes.npz")
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("of-a-job" * 10)))
    assert cli.main([*words, "--data", "npz:shapes.npz", "--preset", "quick"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("rlcas: Ray cannot start: its sockets in ") and error.count("\n") == 1
    assert error.endswith(": set RAY_TMPDIR to a folder with a shorter path, such as RAY_TMPDIR=/tmp\n")
    assert [path.name for path in tmp_path.iterdir()] == ["shapes.npz"]


def test_the_doctor_says_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(FILE / "x"))
    finding = ray_folders.ray_folders()
    assert finding.verdict == "fault" and finding.found.startswith(
        f"Ray cannot start: {FILE}/x/ray, for its sockets"
    )
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert ray_folders.ray_folders().found == "sockets and logs in /tmp/ray"


def test_a_cluster_elsewhere_needs_no_folder_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setenv("RAY_TMPDIR", str(FILE / "x"))
    with socket.create_server(("127.0.0.1", 0)) as head:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{head.getsockname()[1]}")
        check_can_start()
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(
        UserError, match=r"^Ray cannot start: /dev/null/x/ray, .* \(Not a directory\): set RAY_TMPDIR to"
    ):
        check_can_start()
