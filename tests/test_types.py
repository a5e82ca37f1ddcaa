"""The objects that cross processes: cheap to import, and equal by their outcome."""

import dataclasses
import subprocess
import sys

import numpy as np

from rlcas.types import EpisodeReport, EpochResult

REPORT = EpisodeReport(
    epoch=1,
    episode_index=0,
    status="ok",
    actions_C=np.array([0, 2]),
    counts_C=np.array([1, 3]),
    result=EpochResult(
        metrics={"f1": 0.5, "many": float("nan")},
        val_loss=1.0,
        train_loss=2.0,
        per_class={"recall": np.array([0.5, np.nan])},
        num_images=8,
        finite=True,
    ),
    seconds=1.0,
)


def test_the_types_import_neither_torch_nor_file_locks():
    heavy = "{'torch', 'fcntl', 'rlcas.storage', 'rlcas.config'}"
    code = f"import sys, rlcas.types; sys.exit(str({heavy} & set(sys.modules) or ''))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""


def test_reports_are_equal_whatever_their_seconds_and_retries():
    assert dataclasses.replace(REPORT, seconds=9.0, retries=2) == REPORT
    assert dataclasses.replace(REPORT, counts_C=np.array([1, 2])) != REPORT
