"""Ray: episode actors, the RLlib algorithm, whole runs."""

from __future__ import annotations

from typing import Any

__all__ = ["RLCAS", "RLCASConfig"]


def __getattr__(name: str) -> Any:
    """Import the algorithm when it is asked for: an episode actor must not pay for RLlib's import."""
    if name == "RLCAS":
        from cluster.rllib.algorithm import RLCAS

        return RLCAS
    if name == "RLCASConfig":
        from cluster.rllib.algorithm import RLCASConfig

        return RLCASConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
