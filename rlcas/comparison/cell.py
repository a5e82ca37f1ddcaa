"""One cell of a comparison: a row under a seed, its cost and its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter

from rlcas.config.values import Count, NonNegative
from rlcas.errors import UserError
from rlcas.storage.atomic import read_facts, replacing, write_json
from rlcas.storage.reading import read_arrays, typed
from rlcas.types import Float64, Int64

CELL_FILE = "cell.json"
PREDICTIONS_FILE = "test.npz"
UNCORRECTED = "uncorrected"
"""Array of it: the probabilities before the decision offset."""

CellStatus = Literal["finished", "left_out", "failed"]
"""left_out: settings do not suit the row, foundation weights are not given, or there is no seed to replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A row under one seed; all values are JSON's."""

    dataset: str
    method: Annotated[str, Field(min_length=1)]
    seed: int
    equal_compute: bool = False
    """Trained with as many classifier passes as the Baseline, to whole epochs; else with the budget of images."""
    status: CellStatus = "finished"
    reason: str = ""
    """Why it is left out or failed, and the fix, in one line."""
    epochs: Count = 0
    steps: Count = 0
    """Optimiser steps of the classifier that is kept."""
    images: Count = 0
    """Images that it was trained on, real and synthetic."""
    passes: Count = 0
    """Passes over images through a classifier, forward and backward, in all: views, experts and losing episodes too."""
    seconds: NonNegative = 0.0
    """Of its training."""
    device: str = ""
    pool: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its own settings by dotted keys: the method's, and what was found best where they were searched."""
    tried: tuple[Mapping[str, Any], ...] = ()
    """What `compare.tune` tried: `settings`, and the best validation `metric` with them."""
    curve: tuple[Mapping[str, Any], ...] = ()
    """A mapping an epoch: `epoch` from 1, `images` seen so far, `train_loss`, `val_loss` and the validation metrics."""
    best_epoch: Count = 0
    """Epoch of the classifier that validation chose."""
    validation: Mapping[str, Any] = field(default_factory=dict)
    """Its metrics on the validation images."""
    test: Mapping[str, Any] = field(default_factory=dict)
    """`rlcas.metrics.report` of the test images, which were read once."""
    offset: tuple[float, ...] = ()
    """The decision offset δ of each class; none for a classifier without."""


_CELL = TypeAdapter(Cell)


def write_cell(
    folder: Path,
    cell: Cell,
    probabilities_NC: Float64,
    labels_N: Int64,
    uncorrected_NC: Float64 | None = None,
) -> None:
    """Write a finished cell: its predictions first, so that a cell.json means that both files exist.

    Args:
        folder: the cell's folder.
        cell: the cell.
        probabilities_NC: [N, C] of the test images.
        labels_N: [N] true classes of the test images.
        uncorrected_NC: [N, C] probabilities before the decision offset, where there is one.
    """
    arrays = {"probabilities": probabilities_NC, "labels": labels_N}
    if uncorrected_NC is not None:
        arrays[UNCORRECTED] = uncorrected_NC
    # An open file, as NumPy would add .npz to the temporary name; without pickle, as `read_arrays` loads none.
    with replacing(folder / PREDICTIONS_FILE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    write_facts(folder, cell)


def write_facts(folder: Path, cell: Cell) -> None:
    """Write cell.json, the only file of a cell that is left out or failed."""
    write_json(folder / CELL_FILE, cell_facts(cell))


def cell_facts(cell: Cell) -> dict[str, Any]:
    """Return a cell as JSON's values; one without an offset has no key for it, as before there were offsets."""
    return {name: value for name, value in asdict(cell).items() if name != "offset" or value}


def read_cell(folder: Path) -> Cell | None:
    """Return the cell of a folder; None where it is not finished.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / CELL_FILE
    if not (facts := read_facts(path)):
        return None
    cell = typed(facts, _CELL, path, _retrain_hint(folder))
    # A cell.json that came without its predictions, as by a copy in part: the cell is trained again.
    return None if cell.test and not (folder / PREDICTIONS_FILE).exists() else cell


def read_predictions(folder: Path) -> tuple[Float64, Int64]:
    """Return the test probabilities [N, C] and labels [N] of a finished cell.

    Raises:
        UserError: the file is damaged.
    """
    return _predictions(folder, "probabilities")


def read_uncorrected(folder: Path, num_classes: int) -> Float64:
    """Return the test probabilities [N, C] before the offset, of a finished cell that has one.

    Raises:
        UserError: the file is damaged.
    """
    found_NC, _ = _predictions(folder, UNCORRECTED)
    if found_NC.shape[1] != num_classes:
        raise UserError(
            f"{folder / PREDICTIONS_FILE} is damaged (its arrays are of other classes): {_retrain_hint(folder)}"
        )
    return found_NC


def _predictions(folder: Path, name: str) -> tuple[Float64, Int64]:
    path = folder / PREDICTIONS_FILE
    arrays = read_arrays(path, _retrain_hint(folder))
    probabilities_NC, labels_N = arrays.get(name, np.empty(0)), arrays.get("labels", np.empty(0))
    shape_NC = (len(labels_N) if labels_N.ndim == 1 else 0, *probabilities_NC.shape[1:])
    numbers = (probabilities_NC.dtype, labels_N.dtype) == (np.float64, np.int64)
    if not numbers or probabilities_NC.ndim != 2 or probabilities_NC.shape != shape_NC or not labels_N.size:
        raise UserError(
            f"{path} is damaged (it does not hold a prediction of every image): {_retrain_hint(folder)}"
        )
    if not (0 <= labels_N.min() <= labels_N.max() < probabilities_NC.shape[1]):
        raise UserError(f"{path} is damaged (a label is not a class's): {_retrain_hint(folder)}")
    return probabilities_NC, labels_N


def _retrain_hint(folder: Path) -> str:
    return f"delete {folder}, then resume the comparison"
