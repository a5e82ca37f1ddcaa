"""The fields of an incumbent as JSON, without its arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from rlcas.jsonable import jsonable
from rlcas.types import EpochResult, Incumbent


def described(incumbent: Incumbent) -> dict[str, Any]:
    """Return the incumbent as JSON values, without its arrays; floats keep every bit."""
    # Not dataclasses.asdict on the whole, which would deep-copy the weights.
    fields = {field.name: getattr(incumbent, field.name) for field in dataclasses.fields(incumbent)}
    del fields["arrays"]
    if incumbent.result is not None:
        fields["result"] = dataclasses.asdict(incumbent.result)
    # Every bit: json writes a float by its repr, which reads back to the same number.
    return jsonable(fields)


def incumbent_of(fields: dict[str, Any], arrays: dict[str, np.ndarray]) -> Incumbent:
    """Return the incumbent that `described` wrote, with its arrays.

    Raises:
        ValueError: the fields are not those of an incumbent.
    """
    counts_C, positions_C = (np.array(fields[name], dtype=np.int64) for name in ("counts_C", "positions_C"))
    if counts_C.ndim != 1 or counts_C.shape != positions_C.shape or not isinstance(fields["epoch"], int):
        raise ValueError("the fields are not those of an incumbent")
    return Incumbent(
        epoch=fields["epoch"],
        arrays=arrays,
        counts_C=counts_C,
        positions_C=positions_C,
        result=_result(fields["result"]) if fields["result"] else None,
    )


def _result(fields: dict[str, Any]) -> EpochResult:
    metrics = {name: _number(value) for name, value in fields["metrics"].items()}
    per_class = {
        name: np.array([_number(value) for value in values]) for name, values in fields["per_class"].items()
    }
    return EpochResult(**(fields | {"metrics": metrics, "per_class": per_class}))


def _number(value: float | None) -> float:
    """Return a float that JSON may have turned from NaN into null."""
    return float("nan") if value is None else value
