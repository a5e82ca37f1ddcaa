"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real images in MedMNIST form."""
    folder = os.environ.get("RLCAS_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RLCAS_DATA is not set: the real images are not here")
    return Path(folder)
