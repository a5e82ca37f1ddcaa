"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# A property must not fail because the machine is busy.
hypothesis.settings.register_profile("no_deadline", deadline=None)
hypothesis.settings.load_profile("no_deadline")

# A background job of a shell script ignores Ctrl-C, and its child processes inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def pythons_ctrl_c() -> None:
    """Restore Python's own handling of Ctrl-C, which earlier tests may have replaced: Ray Tune keeps its handler."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real images in MedMNIST form."""
    folder = os.environ.get("RLCAS_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RLCAS_DATA is not set: the real images are not here")
    return Path(folder)


@pytest.fixture(scope="session")
def held_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a loss that can be held up, and an undisturbed run."""
    import held_run

    return held_run.make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def held_home(held_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `held_folder`, whose loss processes find."""
    import held_run

    held_run.find_loss(held_folder, monkeypatch)
    return held_folder


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests, whose actors know the test modules' classes."""
    import ray
    import tiny
    import trivial

    from cluster.runtime.connection import ensure_ray

    for module in (tiny, trivial):
        ray.cloudpickle.register_pickle_by_value(module)
    ensure_ray(k=7)
    yield
    ray.shutdown()
