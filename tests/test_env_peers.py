"""The newest RL libraries, as a user has them, drive the environment and its views."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("stable-baselines3", "torchrl", "tensordict", "supersuit", "tinyscaler", "pyvers", "orjson")
"""Without what they require: torch, Gymnasium and PettingZoo are the ones installed here."""
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the newest versions; without a network there is nothing to test."""
    folder = tmp_path_factory.mktemp("peers")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder),
        *PACKAGES,
    ]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"the packages cannot be installed: {done.stderr.strip()[-200:]}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["stable_baselines3", "torchrl", "supersuit"])
def test_the_newest_peers_drive_the_views(peers: Path, peer: str) -> None:
    paths = os.pathsep.join(map(str, (TESTS.parent, TESTS, peers)))
    done = subprocess.run(
        [sys.executable, TESTS / "drive_env_peers.py", peer],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
