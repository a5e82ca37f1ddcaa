"""Comparison folders of made predictions, for tests of tables and pages alone: no classifier was trained for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fake_run import class_names, train_counts

from rlcas import settings
from rlcas.comparison.cell import CELL_FILE, Cell, write_cell
from rlcas.comparison.folder import cell_folder
from rlcas.config import CompareRunConfig
from rlcas.data.prepared import DATA_FILE
from rlcas.metrics import report
from rlcas.runs.folder import RunFolder
from rlcas.shots import shot_groups
from rlcas.storage.atomic import write_json, write_text
from rlcas.types import Float64, Int64

LEFT_OUT = ("lift", "skin_sdm")
FAILED = "glmc"
EPOCHS = 12


class Made(NamedTuple):
    """What a made row is like."""

    skill: float
    balance: float
    """How much of the rare classes' handicap it makes up for."""
    pool: str | None = None
    passes: int = 1


ROWS = {
    "baseline": Made(2.0, 0.5),
    "ce": Made(2.1, 0.0),
    "cbfocal": Made(1.8, 0.5),
    "logit_adjust": Made(2.0, 0.55),
    "lift": Made(0, 0),
    "proco": Made(2.0, 0.6, passes=2),
    "ncl": Made(2.1, 0.6, passes=3),
    "glmc": Made(2.1, 0.5, passes=2),
    "mgdm": Made(2.0, 0.6, "mgdm"),
    "skin_sdm": Made(0, 0, "skin_sdm"),
    "syn_class": Made(2.0, 0.6, "class"),
    "syn_sketch": Made(2.1, 0.6, "sketch"),
    "syn_class_resampling": Made(2.0, 0.65, "class"),
    "syn_class_rlcas": Made(2.1, 0.65, "class", 3),
    "rlcas": Made(2.2, 0.65, "sketch", 3),
    "rlcas_frozen": Made(2.2, 0.62, "sketch", 3),
    "rlcas_k1": Made(2.1, 0.6, "sketch"),
    "constant": Made(2.2, 0.6, "sketch", 3),
    "oversampling": Made(2.0, 0.6, "real"),
    "pbt": Made(2.1, 0.6, "sketch", 3),
    "baseline_best_of_k": Made(2.1, 0.5, passes=3),
}
POOLS = {"class": 71.2, "sketch": 55.9, "mgdm": 90.4}
"""Pool -> FID."""
USEFULNESS = {
    "sketch": {"auc": {"difference": 0.0213, "low": 0.004, "high": 0.039}, "seeds": 3},
    "mgdm": {"auc": {"difference": -0.01, "low": -0.03, "high": 0.01}, "seeds": 3},
}
"""Pool -> what it teaches beyond repeated real images; that of the third was not measured."""


def write_fake_comparison(
    path: Path,
    num_classes: int = 8,
    seeds: int = 3,
    rows: tuple[str, ...] = tuple(ROWS),
    absent: tuple[int, ...] = (),
) -> Path:
    """Write the folder of a comparison whose predictions are random numbers; no test image is of an `absent` class."""
    counts_C = train_counts(num_classes)
    shots = {"many_above": 400, "few_below": 100} if num_classes > 2 else {}
    config = CompareRunConfig.model_validate(
        {"data": "fake", "shots": shots, "compare": {"methods": rows, "seeds": seeds, "epochs": EPOCHS}}
    )
    write_text(path / settings.COMPARE_CONFIG_FILE, settings.as_yaml(config))
    _write_data(path, counts_C)
    labels_N = np.repeat(np.arange(num_classes), np.maximum(counts_C // 6, 5)).astype(np.int64)
    labels_N = labels_N[~np.isin(labels_N, absent)]
    for name in rows:
        for seed in range(seeds):
            for equal in (False, True) if ROWS[name].passes > 1 else (False,):
                write_fake_cell(path, config, name, seed, labels_N, counts_C, equal_compute=equal)
    for name, fid in POOLS.items():
        write_json(
            RunFolder(path / "pools" / name).scores,
            {
                "fid": fid,
                "kid": fid / 1000,
                "intervals": {"kid": [fid / 1200, fid / 900]},
                "copy_rate": 0.01,
                "extractor": "penultimate features of the Baseline's resnet18 of width 16",
                "usefulness": USEFULNESS.get(name),
            },
        )
    return path


def write_fake_cell(
    path: Path,
    config: CompareRunConfig,
    name: str,
    seed: int,
    labels_N: Int64,
    counts_C: Int64,
    *,
    equal_compute: bool = False,
) -> None:
    """Write one cell; those of LEFT_OUT have no weights, and the last seed of FAILED failed."""
    folder = cell_folder(path, name, seed, equal_compute=equal_compute)
    cell = Cell(dataset="fake", method=name, seed=seed, equal_compute=equal_compute, pool=ROWS[name].pool)
    if name in LEFT_OUT:
        reason = f"weights not given: --method.{name}.pretrained takes them: a folder"
        write_json(
            folder / CELL_FILE, dataclasses.asdict(dataclasses.replace(cell, status="left_out", reason=reason))
        )
    elif name == FAILED and seed == 2:
        reason = "the loss is not finite in epoch 3: <b>lower</b> classifier.lr, which is 0.1"
        write_json(
            folder / CELL_FILE, dataclasses.asdict(dataclasses.replace(cell, status="failed", reason=reason))
        )
    else:
        probabilities_NC = _probabilities(name, seed, labels_N, counts_C, equal_compute)
        finished = _finished(cell, config, probabilities_NC, labels_N, counts_C)
        write_cell(folder, finished, probabilities_NC, labels_N)


def _finished(
    cell: Cell, config: CompareRunConfig, probabilities_NC: Float64, labels_N: Int64, counts_C: Int64
) -> Cell:
    passes = ROWS[cell.method].passes
    epochs = EPOCHS if cell.pool is None else EPOCHS * 2 // 3
    epochs = max(1, epochs // passes) if cell.equal_compute else epochs
    images = int(counts_C.sum()) * EPOCHS // (passes if cell.equal_compute else 1)
    num_classes = len(counts_C)
    shots = shot_groups(config.shots, counts_C, np.bincount(labels_N, minlength=num_classes))
    test = report(probabilities_NC, labels_N, shots, class_names(num_classes))
    rng = np.random.default_rng(cell.seed)
    curve = tuple(
        {
            "epoch": epoch,
            "images": images * epoch // epochs,
            "train_loss": float(np.exp(-epoch / 4)),
            "val_loss": float(0.4 + np.exp(-epoch / 4)),
            "f1": float(test["f1"] * (1 - np.exp(-epoch / epochs * 4)) + rng.normal(0, 0.015)),
        }
        for epoch in range(1, epochs + 1)
    )
    return dataclasses.replace(
        cell,
        epochs=epochs,
        steps=images // 64,
        images=images,
        passes=images * passes,
        seconds=20.0 * passes + cell.seed,
        device="cpu",
        settings={"classifier.loss": "balanced_softmax"} if cell.method == "baseline" else {},
        curve=curve,
        best_epoch=max(1, epochs - 1),
        validation={"f1": curve[-1]["f1"]},
        test=test,
    )


def _probabilities(name: str, seed: int, labels_N: Int64, counts_C: Int64, equal: bool) -> Float64:
    """Return random softmaxes: images have a difficulty of their own, rare classes a handicap."""
    difficulty_N = np.random.default_rng(99).normal(0, 1.2, len(labels_N))
    rng = np.random.default_rng([list(ROWS).index(name), seed, equal])
    made = ROWS[name]
    handicap_C = (1 - made.balance) * np.log(counts_C.max() / counts_C) * 0.7
    logits_NC = rng.normal(0, 0.8, (len(labels_N), len(counts_C)))
    logits_NC[np.arange(len(labels_N)), labels_N] += (
        made.skill + rng.normal(0, 0.08) - handicap_C[labels_N] - difficulty_N
    )
    exp_NC = np.exp(logits_NC)
    return exp_NC / exp_NC.sum(axis=1, keepdims=True)


def _write_data(path: Path, counts_C: Int64) -> None:
    write_json(
        RunFolder(path).prepared / DATA_FILE,
        {
            "name": "fake",
            "class_names": class_names(len(counts_C)),
            "image_shape_CHW": (1, 28, 28),
            "class_counts": {"train": counts_C, "val": np.maximum(counts_C // 8, 3)},
            "patients": {"train": False, "val": False},
            "notes": [],
            "window": None,
        },
    )
