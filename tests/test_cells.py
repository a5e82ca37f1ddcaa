"""The reason that a cell has whose task returned nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import ray
from tiny import tiny_config, tiny_data

from cluster.comparison.cell_plan import PlannedCell
from cluster.comparison.schedule import _result
from rlcas import data
from rlcas.runs.folder import RunFolder

pytestmark = pytest.mark.medium


@ray.remote(max_retries=0)
def unloadable() -> None:
    raise ImportError("no module named mine")


@ray.remote(max_retries=0)
def dying() -> None:
    os._exit(3)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (unloadable, "its worker could not train it: ImportError: no module named mine"),
        (dying, "its worker died: "),
    ],
)
def test_the_reason_is_the_cause_in_one_plain_line(
    ray_session: None, tmp_path: Path, task: ray.remote_function.RemoteFunction, reason: str
) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    data.prepare(tiny_data(), RunFolder(tmp_path).prepared)
    cell = PlannedCell(
        method="ce",
        seed=0,
        equal_compute=False,
        config=tiny_config(),
        engine="fit",
        counts_C=(0, 0, 0),
        own={},
        passes=1,
        missing="",
    )
    failed = _result(tmp_path, cell, task.remote())
    assert failed.status == "failed" and failed.reason.startswith(reason) and "\n" not in failed.reason
    assert "\x1b" not in failed.reason + (tmp_path / cell.name / "error.txt").read_text()
