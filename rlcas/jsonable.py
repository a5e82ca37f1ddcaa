"""Conversion of values to JSON's own types."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def jsonable(value: Any) -> Any:
    """Return `value` in JSON's own types: arrays as lists, NaN and infinities as None, paths as text."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    # Before the numbers: NumPy's float64 is a float too, and `tolist` makes Python's own of all of them.
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # NaN != NaN
        return None
    if isinstance(value, Path):
        return str(value)
    return value
