"""A tree of seeds: every random draw of a run is named by a path from the run's one seed."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(seed: int, *path: str | int) -> int:
    """Return the 63-bit seed at `path` below `seed`; seeds of different paths are independent.

    >>> seed_for(0, "order", 3) == seed_for(0, "order", 3)
    True
    >>> seed_for(0, "order", 3) == seed_for(0, "order", 4)
    False
    """
    # With the type, because the paths ("a", 1) and ("a", "1") must not have one seed.
    text = "/".join([str(seed), *(f"{type(part).__name__}:{part}" for part in path)])
    # 63 bits, because torch's seeds are signed; SHA-256, because Python's hash() of text differs between processes.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng_for(seed: int, *path: str | int) -> np.random.Generator:
    """Return the NumPy generator at `path` below `seed`."""
    return np.random.default_rng(seed_for(seed, *path))
