"""Fixtures of all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real images, or skip."""
    if "RLCAS_DATA" not in os.environ:
        pytest.skip("RLCAS_DATA is not set: real images are not here")
    return Path(os.environ["RLCAS_DATA"])


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests, whose actors know the test modules' classes."""
    import ray
    import trivial

    from cluster.start import ensure_ray

    ray.cloudpickle.register_pickle_by_value(trivial)
    ensure_ray(k=7)
    yield
    ray.shutdown()
