"""Folders with the names of our packages, in the folder that rlcas is called in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.runtime.package_shadowing import OUR_PACKAGES, check_not_hidden
from rlcas.errors import UserError


def test_folders_with_the_names_of_our_packages_do_not_hide_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Such as the folder that holds a clone of rlcas, or one with virtual environments in envs/."""
    monkeypatch.chdir(tmp_path)
    for name in OUR_PACKAGES:
        (tmp_path / name).mkdir()
    check_not_hidden()


@pytest.mark.parametrize("name", OUR_PACKAGES)
@pytest.mark.parametrize("form", ["package", "module"])
def test_a_package_of_the_same_name_is_an_error(
    name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    if form == "package":
        (tmp_path / name).mkdir()
    file = tmp_path / (f"{name}/__init__.py" if form == "package" else f"{name}.py")
    file.touch()
    with pytest.raises(
        UserError, match=rf"/{name} is not part of this rlcas, .*: call rlcas in another folder"
    ):
        check_not_hidden()


@pytest.mark.medium
def test_workers_find_rlcas_beside_folders_of_its_packages_names(tmp_path: Path):
    for name in OUR_PACKAGES:
        (tmp_path / name).mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = (
        "import ray; from cluster.runtime.connection import ensure_ray; ensure_ray(1); "
        "print(ray.get(ray.remote(lambda: __import__('envs').BatchCompositionEnv.__name__).remote()))"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["BatchCompositionEnv"], done.stderr


@pytest.mark.medium
def test_a_run_that_would_be_hidden_from_its_workers_is_refused_before_anything_is_made(tmp_path: Path):
    (tmp_path / "envs.py").touch()
    command = [Path(sys.executable).with_name("rlcas"), "run", "--data", "phantom", "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"rlcas: {tmp_path / 'envs'} is not part of this rlcas")
    assert [path.name for path in tmp_path.iterdir()] == ["envs.py"]
