"""Cells of a comparison as files: whole, damaged, missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlcas.comparison.cell import PREDICTIONS_FILE, Cell, read_cell, read_predictions, write_cell
from rlcas.errors import UserError

P_NC, LABELS_N = np.array([[0.25, 0.75], [0.5, 0.5]]), np.array([1, 0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cell = Cell(
        dataset="x", method="ce", seed=3, epochs=2, curve=({"epoch": 1}, {"epoch": 2}), test={"f1": 0.5}
    )
    write_cell(tmp_path, cell, P_NC, LABELS_N)
    return tmp_path


def test_a_cell_is_read_as_it_was_written(folder: Path) -> None:
    cell = read_cell(folder)
    assert cell is not None and (cell.method, cell.seed, cell.test["f1"], len(cell.curve)) == ("ce", 3, 0.5, 2)
    p_NC, labels_N = read_predictions(folder)
    np.testing.assert_array_equal(p_NC, P_NC)
    np.testing.assert_array_equal(labels_N, LABELS_N)


def test_a_cell_without_its_predictions_is_not_finished(folder: Path) -> None:
    (folder / PREDICTIONS_FILE).unlink()
    assert read_cell(folder) is None
    assert read_cell(folder / "nowhere") is None


@pytest.mark.parametrize("kept_bytes", [0, 1, 100, 300])
def test_damaged_predictions_are_reported_with_the_fix(folder: Path, kept_bytes: int) -> None:
    path = folder / PREDICTIONS_FILE
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(UserError, match=r"test\.npz is damaged \(.*\): delete .*, then resume the comparison$"):
        read_predictions(folder)
