"""The engine as the benchmarks build it. Not in `common.py`, as most of them need no RLlib."""

from __future__ import annotations

from typing import Any

from cluster import RLCAS, RLCASConfig


def build_engine(sampler: dict[str, Any], **episodes: Any) -> RLCAS:
    """Return the engine with settings of the sampler and of its episodes (as `RLCASConfig.episodes` takes them)."""
    return RLCASConfig().training(**sampler).episodes(**episodes).debugging(log_level="ERROR").build_algo()
