"""Run folders as the engine leaves them, from a made process: no training, every file in its real format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rlcas.batches.composition import num_clamped
from rlcas.config import RunConfig, SamplerConfig
from rlcas.rewards import with_advantages
from rlcas.runs.epoch_log import append_epoch
from rlcas.storage.atomic import write_json
from rlcas.types import EpisodeReport, EpochRecord, EpochResult, Float64, Int64

BREAST_8 = (
    "fibroadenoma",
    "cyst, simple or complicated",
    "invasive ductal carcinoma",
    "invasive lobular carcinoma",
    "ductal carcinoma in situ (DCIS), high grade",
    "phyllodes tumour",
    "<script>document.title='run by a class name'</script>",
    "lymph node",
)


def class_names(num_classes: int) -> tuple[str, ...]:
    if num_classes <= len(BREAST_8):
        return BREAST_8[:num_classes]
    return tuple(f"finding {c:03d}" for c in range(num_classes))


def train_counts(num_classes: int) -> Int64:
    return np.round(1679 * 48.0 ** (-np.arange(num_classes) / (num_classes - 1))).astype(np.int64)


def _result(rng: np.random.Generator, counts_C: Int64, epoch: int) -> EpochResult:
    num_classes = len(counts_C)
    best_C = np.linspace(0, 14, num_classes)
    skill = 1 - np.exp(-epoch / 8)
    recall_C = (0.95 - 0.7 * best_C / 14) * skill + 0.2 * skill * (1 - ((counts_C - best_C) / 16) ** 2)
    recall_C = np.clip(recall_C + rng.normal(0, 0.02, num_classes), 0, 1)
    thirds = np.array_split(recall_C, 3)
    many, medium, few = (float(part.mean()) if part.size else float("nan") for part in thirds)
    recall = float(recall_C.mean())
    metrics = {
        "acc": float(recall_C[0]),
        "f1": 0.96 * recall,
        "recall": recall,
        "precision": 0.93 * recall,
        "auc": 0.5 + recall / 2,
        "many": many,
        "medium": medium,
        "few": few,
    }
    loss = float(1.6 * np.exp(-epoch / 12))
    return EpochResult(
        metrics=metrics,
        val_loss=loss,
        train_loss=0.8 * loss,
        per_class={"recall": recall_C},
        num_images=4000,
        finite=True,
    )


def _report(
    rng: np.random.Generator, epoch: int, episode_index: int, parent_C: Int64, p_C3: Float64, failing: bool
) -> EpisodeReport:
    actions_C = np.array([rng.choice(3, p=p_3) for p_3 in p_C3])
    counts_C = np.clip(parent_C + 2 * (actions_C - 1), 0, 16)
    outcome = {
        "epoch": epoch,
        "episode_index": episode_index,
        "actions_C": actions_C,
        "counts_C": counts_C,
        "num_clamped": num_clamped(parent_C, counts_C, actions_C, 2),
    }
    if failing:
        text = "Traceback (most recent call last):\ntorch.OutOfMemoryError: <b>tried to allocate 2 GiB</b>"
        return EpisodeReport(**outcome, status="out_of_memory", seconds=3.5, traceback=text)
    result = _result(rng, counts_C, epoch)
    reward = (result.metrics["f1"] + 0.04) ** 3
    return EpisodeReport(
        **outcome,
        status="ok",
        num_synthetic=30 * int(counts_C.sum()),
        reward=reward,
        reward_parts={"team": reward},
        retries=int((epoch, episode_index) == (2, 0)),
        result=result,
        seconds=float(rng.uniform(8, 11)),
    )


def fake_records(
    num_classes: int = 8, epochs: int = 30, k: int = 3, drift: float = 0.0, curved: bool = False
) -> list[EpochRecord]:
    """Records of a best-of-K search; `drift` is how far the policy moves from uniform over the run."""
    rng = np.random.default_rng(num_classes)
    parent_C, baseline, best, best_epoch = np.full(num_classes, 2), 0.0, -1.0, 0
    records = []
    for epoch in range(1, epochs + 1):
        lean_C = drift * epoch / epochs * np.linspace(-1, 1, num_classes)
        p_C3 = np.stack([1 / 3 - lean_C, np.full(num_classes, 1 / 3), 1 / 3 + lean_C], axis=1)
        reports = [_report(rng, epoch, j, parent_C, p_C3, epoch == 4 and j == k - 1) for j in range(k)]
        valid = [report for report in reports if report.result]
        winner = max(valid, key=lambda report: report.result.metrics["f1"])
        parent_C = winner.counts_C
        baseline = 0.01 * baseline + 0.99 * float(np.mean([report.reward for report in valid]))
        if winner.result.metrics["f1"] > best:
            best, best_epoch = winner.result.metrics["f1"], epoch
        records.append(
            EpochRecord(
                epoch=epoch,
                reports=tuple(with_advantages(reports, baseline, SamplerConfig())),
                winner=winner.episode_index,
                baseline=baseline,
                probabilities_C3=p_C3,
                best_metric=best,
                best_epoch=best_epoch,
                seconds=max(report.seconds for report in reports) + 0.1,
                curves_CG=_curves_CG(num_classes, epoch) if curved else None,
                seconds_by_part={
                    "policy": 0.06,
                    "episodes": max(report.seconds for report in reports),
                    "learning": 0.04,
                },
            )
        )
    return records


def _curves_CG(num_classes: int, epoch: int) -> Float64:
    """Quadratics that peak at 2c, modulo 18; of the last class there are no validation images."""
    peaks_C = 2.0 * (np.arange(num_classes) % 9)
    curves_CG = -epoch * (np.arange(0, 17, 2) - peaks_C[:, None]) ** 2 / 256
    curves_CG[-1] = np.nan
    return curves_CG


def _test_figures(num_classes: int) -> dict:
    rng = np.random.default_rng(num_classes + 1)
    counts_C = np.maximum(train_counts(num_classes) * 2 // 7, 2)
    recall_C = np.clip(np.linspace(0.93, 0.25, num_classes) + rng.normal(0, 0.05, num_classes), 0.02, 0.98)
    confusion_CC = np.stack(
        [
            rng.multinomial(n, _confused(c, recall, num_classes))
            for c, (n, recall) in enumerate(zip(counts_C, recall_C, strict=True))
        ]
    )
    per_class_C = confusion_CC.diagonal() / confusion_CC.sum(axis=1)
    return {
        "acc": float(confusion_CC.trace() / confusion_CC.sum()),
        "f1": 0.5731,
        "recall": float(per_class_C.mean()),
        "precision": 0.6012,
        "auc": 0.9123,
        "average_precision": 0.6433,
        "log_loss": 0.9127,
        "many": float(per_class_C[: num_classes // 2].mean()),
        "medium": float("nan"),
        "few": float(per_class_C[num_classes // 2 :].mean()),
        "per_class_recall": per_class_C,
        "ece": 0.0712,
        "n": int(confusion_CC.sum()),
        "confusion": confusion_CC,
        "intervals": {"f1": [0.5412, 0.6049], "recall": [0.551, 0.622]},
    }


def _confused(c: int, recall: float, num_classes: int) -> Float64:
    p_C = np.exp(-np.abs(np.arange(num_classes) - c) / 2.0)
    p_C[c] = 0
    p_C *= (1 - recall) / p_C.sum()
    p_C[c] = recall
    return p_C


def _pool_scores(n_real: int, n_synthetic: int, fid: float) -> dict:
    return {
        "n_real": n_real,
        "n_synthetic": n_synthetic,
        "fid": fid,
        "kid": 0.0312,
        "intervals": {"kid": [0.0271, 0.0353]},
        "prdc": {"precision": 0.71, "recall": 0.42, "density": 1.13, "coverage": 0.63},
        "distance_ratio": 0.934,
        "auth_pct": 88.24,
        "copy_rate": 0.0042,
        "copy_rate_before": 0.0191,
        "num_copies": 36,
    }


def metrics_json(num_classes: int) -> dict:
    return {
        "test": _test_figures(num_classes),
        "val": {"acc": 0.81, "f1": 0.5899, "recall": 0.602, "precision": 0.61, "auc": 0.92, "n": 563},
        "synthesis": {
            **_pool_scores(3935, 2400, 41.27),
            "sketch_skill": 0.4321,
            "held_out_copy_rate": 0.0142,
            "n_held_out": 562,
            "extractor": "resnet18",
            "feature_dims": 512,
            "filter": {
                "settings": {"confidence": [0.3, 0.9], "distance": None},
                "per_class": [
                    {"class": name, "n": 300, "left_out": c, "outside": {"confidence": c}, "kept_outside": 0}
                    for c, name in enumerate(class_names(num_classes))
                ],
            },
            "pool_only": {
                "recall": 0.4123,
                "low": 0.371,
                "high": 0.452,
                "chance": 1 / num_classes,
                "n": 1124,
                "per_class_recall": np.linspace(0.8, 0.0246, num_classes),
            },
            "per_class": [
                {"class": name, **_pool_scores(int(count), 300, float("nan"))}
                for name, count in zip(class_names(num_classes), train_counts(num_classes), strict=True)
            ],
        },
        "seconds": {"data": 1.2, "autoencoder": 61.0, "denoiser": 122.4, "sampling": 40.1, "sampler": 7300.5},
        "versions": {"rlcas": "0.1.0", "python": "3.11.2", "torch": "2.15.0", "ray": "2.60.0"},
    }


def _speckle(rng: np.random.Generator, num_classes: int, size_px: int, contrast: float, num_images: int = 6):
    y, x = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j]
    shape = (num_classes, num_images, 1, size_px, size_px)
    radius = rng.uniform(0.25, 0.6, (num_classes, num_images, 1, 1, 1))
    squeeze = np.linspace(0.7, 1.6, num_classes).reshape(-1, 1, 1, 1, 1)
    lesion = (x**2 * squeeze + y**2 / squeeze) < radius**2
    speckle = rng.rayleigh(0.45, shape)
    return np.clip(255 * speckle * np.where(lesion, contrast, 0.8), 0, 255).astype(np.uint8), lesion


def gallery(num_classes: int, size_px: int = 32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    arrays = {}
    for name, contrast in (("real", 0.25), ("synthetic", 0.3)):
        images, lesion = _speckle(rng, num_classes, size_px, contrast)
        edges = np.abs(np.diff(lesion.astype(int), axis=-1, prepend=0))
        arrays[name], arrays[f"{name}_sketch"] = images, (255 * edges).astype(np.uint8)
    return arrays


def write_run(
    folder: Path, num_classes: int = 8, epochs: int = 30, drift: float = 0.004, curved: bool = False
) -> Path:
    """Write a whole, finished run into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    names, counts_C = class_names(num_classes), train_counts(num_classes)
    config = RunConfig(data="breastmnist", seed=7).model_dump(mode="json")
    (folder / "config.yaml").write_text(json.dumps(config, indent=2))  # JSON is YAML
    counts = {"train": counts_C, "val": np.maximum(counts_C // 7, 1)}
    note = "validation image 154 and training image 115 are the same picture with other labels"
    write_json(
        folder / "prepared" / "data.json",
        {
            "name": "breastmnist",
            "class_names": names,
            "image_shape_CHW": [1, 32, 32],
            "class_counts": counts,
            "patients": {"train": False, "val": False},
            "notes": [note],
            "window": None,
        },
    )
    for record in fake_records(num_classes, epochs, drift=drift, curved=curved):
        append_epoch(folder, record)
    write_json(folder / "metrics.json", metrics_json(num_classes))
    np.savez(folder / "gallery.npz", **gallery(num_classes))
    _write_synthesis_log(folder)
    return folder


def _write_synthesis_log(folder: Path) -> None:
    lines = [
        {"part": "autoencoder", "step": s, "l1": 0.3 * s**-0.3, "kl": 40 * s**-0.1} for s in range(10, 800, 10)
    ]
    lines += [
        {"part": "denoiser", "step": s, "loss": s**-0.35, "sketch_loss": 0.5 * s**-0.2}
        for s in range(10, 2000, 10)
    ]
    (folder / "synthesis_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
