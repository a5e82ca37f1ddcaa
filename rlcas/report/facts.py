"""What a run's folder tells: settings, data, epochs, figures, images; what is not there yet is None or empty."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlcas import settings
from rlcas.config import RunConfig
from rlcas.data.prepared import DATA_FILE
from rlcas.records import read_epochs, read_lines
from rlcas.rundir import RunFolder
from rlcas.types import Float64, Uint8

UNIFORM = 1 / 3
HARDLY_MOVED = 0.05
"""Policies that stay within this of uniform are all but random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """A run's folder, read."""

    config: RunConfig
    settings_text: str
    """config.yaml as it stands."""
    data: dict[str, Any] | None
    epochs: list[dict[str, Any]]
    metrics: dict[str, Any]
    """Empty until the run is finished."""
    seconds: dict[str, float]
    gallery: dict[str, Uint8] | None
    """`real`, `real_sketch`, `synthetic`, `synthetic_sketch`: [C, M, channels, H, W] uint8."""
    synthesis_log: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Return the data set's name, or the setting `data` until the data are prepared."""
        return self.data["name"] if self.data else self.config.data

    @property
    def class_names(self) -> list[str]:
        """Return [C] names; numbers, where the epochs are all that tells of classes."""
        if self.data:
            return self.data["class_names"]
        num_classes = len(self.epochs[0]["probabilities"]) if self.epochs else 0
        return [f"class {c}" for c in range(num_classes)]

    @property
    def test(self) -> dict[str, Any] | None:
        """Return the test figures."""
        return self.metrics.get("test")

    @property
    def missing(self) -> list[str]:
        """Return what the folder does not hold yet, in words."""
        expected = {
            "prepared data": self.data,
            "training log of the synthesiser": self.synthesis_log or self.config.pool,
            "epochs of the sampler": self.epochs,
            "example images": self.gallery,
            "test figures": self.test,
        }
        return [what for what, there in expected.items() if not there]

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Return the episodes that ended badly: epoch, child, status, traceback."""
        return [
            {"epoch": line["epoch"], "child": child, "status": status, "traceback": line["tracebacks"][child]}
            for line in self.epochs
            for child, status in enumerate(line["statuses"])
            if status != "ok"
        ]

    @property
    def retries(self) -> int:
        """Return how often an episode was run again because its worker or its node died."""
        return sum(sum(line.get("retries", [])) for line in self.epochs)

    def winners(self, key: str) -> list[Any]:
        """Return, an epoch, what the surviving child has under `key`, which holds a list of K."""
        return [line[key][line["winner"]] for line in self.epochs]

    def probabilities_TC3(self) -> Float64:
        """Return [T, C, 3]: the policies of each epoch."""
        return np.array([line["probabilities"] for line in self.epochs])

    @property
    def fits_curves(self) -> bool:
        """Return whether the agents fitted response curves to what they saw."""
        return bool(self.epochs) and self.epochs[-1].get("curves") is not None

    def moved(self) -> float:
        """Return how far the policies ever were from uniform: max |p − 1/3|."""
        return float(np.abs(self.probabilities_TC3() - UNIFORM).max())


def read_run(path: Path) -> RunFacts:
    """Read a run's folder.

    Raises:
        UserError: it is not a run's folder.
    """
    folder = RunFolder(path)
    config = settings.load(path)
    metrics = _json(folder.metrics) or {}
    return RunFacts(
        config=config,
        settings_text=(path / settings.CONFIG_FILE).read_text(encoding="utf-8"),
        data=_json(folder.prepared / DATA_FILE),
        epochs=read_epochs(path),
        metrics=metrics,
        seconds=metrics.get("seconds") or _json(folder.timings) or {},
        gallery=_arrays(folder.gallery),
        synthesis_log=read_lines(folder.synthesis_log),
    )


def _json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _arrays(path: Path) -> dict[str, Uint8] | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
