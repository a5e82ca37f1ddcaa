"""A comparison's folder, read: its settings, data, rows with their cells, predictions and pools."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from rlcas import settings
from rlcas.comparison.cell import Cell, read_cell, read_predictions, read_uncorrected
from rlcas.comparison.intervals import RAREST
from rlcas.config import CompareRunConfig
from rlcas.data.prepared import DATA_FILE, DataFacts, read_data_facts
from rlcas.errors import UserError
from rlcas.methods import METHODS
from rlcas.methods.method import Method
from rlcas.registry import lookup
from rlcas.runs.folder import POOLS_FOLDER, RunFolder
from rlcas.shots import ShotGroups, shot_groups
from rlcas.storage.atomic import read_facts
from rlcas.storage.reading import typed
from rlcas.types import Float64, Int64

CELLS_FOLDER = "cells"
EQUAL_SUFFIX = "-equal"
MADE_FILE = "made.json"
"""When its cells were trained, and with which versions of packages."""
ALL = "all"
CellKey = tuple[str, int, bool]
"""Method, seed, and whether it is the row's second cell under that seed, of equal compute."""
_SECONDS = TypeAdapter(dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """A method with its cells, by seed."""

    name: str
    method: Method
    cells: dict[int, Cell]
    """Of the tables: under the budget of images, or with the passes of the Baseline alone (`only_equal`)."""
    equal: dict[int, Cell]
    """With the passes of the Baseline, where the row needs more."""
    needs_equal: bool
    """Whether the comparison asks for these."""
    only_equal: bool
    """Whether the row needs more passes than the Baseline and is trained with as many as it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A comparison's folder, read; cells that have not been trained yet are not in it."""

    path: Path
    config: CompareRunConfig
    settings_text: str
    """compare.yaml as it stands."""
    data: DataFacts
    """data.json of the prepared images."""
    rows: tuple[TableRow, ...]
    """All that are asked for, in the order of the tables."""
    pools: dict[str, dict[str, Any]]
    """Pool -> its figures; empty where it was not scored."""
    pool_seconds: dict[str, float | None]
    """Pool -> seconds of training its synthesiser and sampling; None where that was done elsewhere."""
    probabilities: dict[CellKey, Float64]
    """[N, C] of finished cells."""
    labels_N: Int64
    """[N] true classes of the test images; none before the first cell is finished."""
    uncorrected: dict[CellKey, Float64] = field(default_factory=dict)
    """Those before the decision offset, of the cells that have one."""

    @property
    def name(self) -> str:
        """Return the data set's name."""
        return self.data["name"]

    @property
    def class_names(self) -> list[str]:
        """Return C names."""
        return self.data["class_names"]

    @property
    def train_counts_C(self) -> Int64:
        """Return [C]: real training images."""
        return np.array(self.data["class_counts"]["train"], dtype=np.int64)

    @property
    def test_counts_C(self) -> Int64:
        """Return [C]: test images."""
        return np.bincount(self.labels_N, minlength=len(self.class_names)).astype(np.int64)

    @property
    def absent_classes(self) -> list[str]:
        """Return the names of the classes that no test image is of; none before the first cell is finished."""
        absent_C = (self.test_counts_C == 0) & (len(self.labels_N) > 0)
        return [self.class_names[c] for c in np.flatnonzero(absent_C)]

    @property
    def shots(self) -> ShotGroups:
        """Return the many-, medium- and few-shot classes."""
        return shot_groups(self.config.shots, self.train_counts_C, self.test_counts_C)

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Return the classes of each group whose recall is reported."""
        # A class without test images has no recall; all have none before the first cell is finished.
        tested_C = (self.test_counts_C > 0) | (len(self.labels_N) == 0)
        rarest = (int(np.where(tested_C, self.train_counts_C, np.iinfo(np.int64).max).argmin()),)
        return {"many": self.shots.many, "medium": self.shots.medium, "few": self.shots.few, RAREST: rarest}

    @property
    def seeds(self) -> range:
        """Return the seeds under which every row is to be trained."""
        return range(self.config.seed, self.config.seed + self.config.compare.seeds)

    @property
    def budget_images(self) -> int:
        """Return the number of images that every row is to be trained on."""
        return self.config.compare.epochs * int(self.train_counts_C.sum())

    @property
    def cells(self) -> Iterator[Cell]:
        """Yield all cells, row after row."""
        for row in self.rows:
            yield from row.cells.values()
            yield from row.equal.values()


def cell_folder(path: Path, method: str, seed: int, *, equal_compute: bool = False) -> Path:
    """Return the folder of a cell below that of its comparison.

    Args:
        path: the comparison's folder.
        method: the row's name.
        seed: the cell's seed.
        equal_compute: whether the cell is trained with the Baseline's passes.
    """
    return path / CELLS_FOLDER / slug(method) / f"{seed}{EQUAL_SUFFIX if equal_compute else ''}"


def slug(method: str) -> str:
    """Return a method's name for a folder: that of a method from outside has a colon."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", method)


def row_names(config: CompareRunConfig) -> list[str]:
    """Return the names of the rows to compare; `all` stands for those of `METHODS`, in their order."""
    asked = config.compare.methods
    names = [name for method in asked for name in (METHODS if method == ALL else [method])]
    # A row that is named beside `all` is one row, at its first place.
    return list(dict.fromkeys(names))


def read_comparison(path: Path) -> Comparison:
    """Read a comparison's folder, finished or not.

    Raises:
        UserError: it is not a comparison's folder, a file in it is damaged, or cells were tested on other images.
    """
    settings_file = path / settings.COMPARE_CONFIG_FILE
    prepared = RunFolder(path).prepared
    if not settings_file.is_file() or not (prepared / DATA_FILE).exists():
        raise UserError(
            f"{path} is not a comparison's folder: it has no {settings_file.name}, or no prepared images; name the "
            "--out of a comparison"
        )
    config = settings.of_comparison(settings.read_yaml(settings_file))
    rows = tuple(_row(path, config, name) for name in row_names(config))
    data = read_data_facts(prepared)
    probabilities, uncorrected, labels_N = _predictions(path, rows, len(data["class_names"]))
    return Comparison(
        path=path,
        config=config,
        settings_text=settings_file.read_text(encoding="utf-8"),
        data=data,
        rows=rows,
        pools={name: read_facts(folder.scores) for name, folder in _pools(path).items()},
        pool_seconds={name: _seconds_of_making(folder) for name, folder in _pools(path).items()},
        probabilities=probabilities,
        labels_N=labels_N,
        uncorrected=uncorrected,
    )


def _row(path: Path, config: CompareRunConfig, name: str) -> TableRow:
    seeds = range(config.seed, config.seed + config.compare.seeds)

    def cells(equal_compute: bool) -> dict[int, Cell]:
        found = {seed: read_cell(cell_folder(path, name, seed, equal_compute=equal_compute)) for seed in seeds}
        return {  # its folder decides which cell it is, not the file, which may have been copied
            seed: replace(cell, method=name, seed=seed, equal_compute=equal_compute)
            for seed, cell in found.items()
            if cell
        }

    method = lookup(name, METHODS, "compare.methods")
    passes = method.passes(settings.override(config, method.settings))
    only_equal = config.compare.equal_compute == "only" and passes > 1
    return TableRow(
        name=name,
        method=method,
        cells=cells(only_equal),
        equal={} if only_equal else cells(True),
        needs_equal=config.compare.equal_compute is True and passes > 1,
        only_equal=only_equal,
    )


def _predictions(
    path: Path, rows: tuple[TableRow, ...], num_classes: int
) -> tuple[dict[CellKey, Float64], dict[CellKey, Float64], Int64]:
    """Return the test probabilities of all finished cells, those before an offset, and the labels that all share."""
    probabilities: dict[CellKey, Float64] = {}
    uncorrected: dict[CellKey, Float64] = {}
    labels_N, first = np.empty(0, np.int64), None
    both = [(second, of) for row in rows for second, of in ((False, row.cells), (True, row.equal))]
    for second, cell in ((second, cell) for second, of in both for cell in of.values()):
        if cell.status != "finished":
            continue
        folder = cell_folder(path, cell.method, cell.seed, equal_compute=cell.equal_compute)
        found_NC, found_N = read_predictions(folder)
        labels_N, first = (found_N, folder) if first is None else (labels_N, first)
        # Rows are compared image by image, in one draw of the test images for all.
        if found_NC.shape[1] != num_classes or not np.array_equal(found_N, labels_N):
            other = f"other images than {first}" if found_NC.shape[1] == num_classes else "other classes"
            raise UserError(f"{folder} was tested on {other}: delete it, then resume the comparison")
        key = cell.method, cell.seed, second
        probabilities[key] = found_NC
        if cell.offset:
            uncorrected[key] = read_uncorrected(folder, num_classes)
    return probabilities, uncorrected, labels_N


def _pools(path: Path) -> dict[str, RunFolder]:
    return {folder.name: RunFolder(folder) for folder in sorted((path / POOLS_FOLDER).glob("*/"))}


def _seconds_of_making(folder: RunFolder) -> float | None:
    seconds = typed(read_facts(folder.timings), _SECONDS, folder.timings)
    # Without the training of the synthesiser the pool was made elsewhere.
    return seconds["synthesiser"] + seconds.get("pool", 0.0) if "synthesiser" in seconds else None
