"""An incumbent as a safetensors file, and its fields as JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from rlcas.jsonable import jsonable
from rlcas.storage.atomic import replacing
from rlcas.types import EpochResult, Incumbent


def write_incumbent(incumbent: Incumbent, path: Path) -> None:
    """Write an incumbent as one safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file(
            contiguous(incumbent.arrays), temporary, metadata={"incumbent": json.dumps(described(incumbent))}
        )


def read_incumbent(path: Path) -> Incumbent:
    """Return what `write_incumbent` wrote."""
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        return incumbent_of(json.loads(file.metadata()["incumbent"]), arrays)


def described(incumbent: Incumbent) -> dict[str, Any]:
    """Return the incumbent as JSON values, without its arrays; floats keep every bit."""
    fields = {field.name: getattr(incumbent, field.name) for field in dataclasses.fields(incumbent)}
    del fields["arrays"]
    if incumbent.result is not None:
        fields["result"] = dataclasses.asdict(incumbent.result)
    return jsonable(fields)


def incumbent_of(fields: dict[str, Any], arrays: dict[str, np.ndarray]) -> Incumbent:
    """Return the incumbent that `described` wrote, with its arrays.

    Raises:
        ValueError: the fields describe no incumbent.
    """
    counts_C, positions_C = (np.array(fields[name], dtype=np.int64) for name in ("counts_C", "positions_C"))
    if counts_C.ndim != 1 or counts_C.shape != positions_C.shape or not isinstance(fields["epoch"], int):
        raise ValueError("it describes no incumbent")
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


def contiguous(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays in C order, as safetensors stores them."""
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
