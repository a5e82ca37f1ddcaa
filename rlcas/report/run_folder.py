"""A run's folder as the report reads it; whatever an interrupted run has not written yet is empty."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlcas.errors import UserError
from rlcas.records import EPOCHS_FILE, read_epochs
from rlcas.types import Uint8

PARTS = {
    "config.yaml": "the resolved settings",
    "data.json": "class names and counts",
    EPOCHS_FILE: "the epochs of the sampler",
    "metrics.json": "the test figures",
    "gallery.npz": "real and synthetic images",
    "synthesis_log.jsonl": "the losses of the synthesiser",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """What a run has written so far."""

    path: Path
    settings_text: str
    settings: dict[str, Any]
    data: dict[str, Any]
    epochs: list[dict[str, Any]]
    """The lines of epochs.jsonl, as `rlcas.records.epoch_line` describes them."""
    metrics: dict[str, Any]
    gallery: dict[str, Uint8]
    """Some of real, real_sketch, synthetic, synthetic_sketch; each [C, M, channels, H, W]."""
    synthesis_log: list[dict[str, Any]]
    missing: list[str]
    """What is not there yet, in words."""

    @property
    def class_names(self) -> list[str]:
        """Return the C names; "class 3" where data.json is not there."""
        if self.data:
            return list(self.data["class_names"])
        by_class = [epoch["probabilities"] for epoch in self.epochs[:1]] + list(self.gallery.values())
        return [f"class {c}" for c in range(len(by_class[0]) if by_class else 0)]

    def counts(self, split: str) -> list[int]:
        """Return the images of each class in `train`, `val` or `test`; empty where unknown."""
        return list(self.data.get("counts", {}).get(split, []))


def read_run(path: Path) -> RunFolder:
    """Read a run's folder.

    Raises:
        UserError: the folder holds nothing of a run.
    """
    missing = [name for name in PARTS if not (path / name).exists()]
    if len(missing) == len(PARTS):
        raise UserError(f"{path} is not a run's folder: it holds none of {', '.join(PARTS)}")
    settings_text = "" if "config.yaml" in missing else (path / "config.yaml").read_text(encoding="utf-8")
    return RunFolder(
        path=path,
        settings_text=settings_text,
        settings=yaml.safe_load(settings_text) or {},
        data=_read_json(path / "data.json"),
        epochs=read_epochs(path),
        metrics=_read_json(path / "metrics.json"),
        gallery=_read_gallery(path / "gallery.npz"),
        synthesis_log=_read_lines(path / "synthesis_log.jsonl"),
        missing=[f"{PARTS[name]} ({name})" for name in missing],
    )


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a JSON-lines file; a torn last line is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _read_gallery(path: Path) -> dict[str, Uint8]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
