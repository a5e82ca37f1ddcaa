"""TensorBoard events of a run: what the agents do, what it brings, how the synthesiser learns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlcas.types import EpochRecord, Uint8

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS_FOLDER = "tensorboard"
MOST_SCALAR_CLASSES = 16
ACTION_NAMES = ("less", "same", "more")
GALLERY_ROWS = ("real", "real_sketch", "synthetic", "synthetic_sketch")


class Tracker:
    """Writes a run's TensorBoard events below `folder`/tensorboard.

    The epochs and each part of the synthesiser count their own steps, so each is a TensorBoard run of its
    own. A run that is resumed replaces the steps from the first one that it logs again.

    Args:
        folder: the run's folder.
        class_names: C names. Up to 16 classes get scalars each, with their names in the tags; more are
            told by histograms.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self._folder = folder / EVENTS_FOLDER
        self._tags_C = [f"{c:02d}_{_as_tag(name)}" for c, name in enumerate(class_names)]
        self._writers: dict[str, SummaryWriter] = {}

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def settings(self, text: str) -> None:
        """Write the resolved settings, as YAML text."""
        indented = "\n".join(f"    {line}" for line in text.splitlines())
        self._writer("run", 0).add_text("settings", indented, 0)

    def epoch(self, record: EpochRecord) -> None:
        """Write all of one epoch at step `record.epoch`."""
        writer = self._writer("epochs", record.epoch)
        for tag, value in self._scalars(record).items():
            writer.add_scalar(tag, value, record.epoch)
        if len(self._tags_C) > MOST_SCALAR_CLASSES:
            winner = record.reports[record.winner]
            writer.add_histogram("composition/counts", winner.counts_C, record.epoch)
            for action, p_C in zip(ACTION_NAMES, record.probabilities_C3.T, strict=True):
                writer.add_histogram(f"policy/{action}", p_C, record.epoch)
        writer.flush()

    def synthesis(self, part: str, step: int, figures: Mapping[str, float]) -> None:
        """Write losses of a part of the synthesiser ("autoencoder", "denoiser") at its optimiser step."""
        writer = self._writer(part, step)
        for name, value in figures.items():
            writer.add_scalar(f"synthesis/{part}/{name}", value, step)

    def gallery(self, arrays: Mapping[str, Uint8]) -> None:
        """Write a grid a class: rows of real images, their sketches, synthetic images, their sketches.

        Args:
            arrays: some of `real`, `real_sketch`, `synthetic`, `synthetic_sketch`, each
                [C, M, channels, H, W] uint8.
        """
        writer = self._writer("run", 0)
        rows = [name for name in GALLERY_ROWS if name in arrays]
        for c, tag in enumerate(self._tags_C[:MOST_SCALAR_CLASSES]):
            grid_HWC = np.concatenate([_row_HWC(arrays[name][c]) for name in rows])
            writer.add_image(f"images/{tag}", grid_HWC, 0, dataformats="HWC")
        writer.flush()

    def close(self) -> None:
        """Flush and close every file."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, part: str, step: int) -> SummaryWriter:
        if part not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            self._writers[part] = SummaryWriter(str(self._folder / part), purge_step=step)
        return self._writers[part]

    def _scalars(self, record: EpochRecord) -> dict[str, float]:
        winner = record.reports[record.winner]
        assert winner.result is not None, "the winner is a valid episode"
        return {
            **_reward_scalars(record),
            **{f"metrics/{name}": value for name, value in winner.result.metrics.items()},
            "metrics/best": record.best_metric,
            "metrics/val_loss": winner.result.val_loss,
            "metrics/train_loss": winner.result.train_loss,
            "composition/sum": int(winner.counts_C.sum()),
            "policy/entropy": float(record.entropy_C.mean()),
            "policy/distance_from_uniform": float(np.abs(record.probabilities_C3 - 1 / 3).max()),
            "time/epoch_seconds": record.seconds,
            **{f"time/episode_{report.child}_seconds": report.seconds for report in record.reports},
            **self._class_scalars(record),
        }

    def _class_scalars(self, record: EpochRecord) -> dict[str, float]:
        if len(self._tags_C) > MOST_SCALAR_CLASSES:
            return {}
        counts_C = record.reports[record.winner].counts_C
        scalars: dict[str, Any] = {}
        for tag, count, p_3 in zip(self._tags_C, counts_C, record.probabilities_C3, strict=True):
            scalars[f"composition/{tag}"] = count
            scalars |= {f"policy/{tag}/{action}": p for action, p in zip(ACTION_NAMES, p_3, strict=True)}
        return scalars


def _as_tag(name: str) -> str:
    """Return a class name as one level of a tag: / would open a group of its own."""
    return re.sub(r"[^\w.-]+", "_", name)


def _reward_scalars(record: EpochRecord) -> dict[str, float]:
    valid = [report for report in record.reports if report.valid]
    return {
        **{f"reward/episode_{report.child}": report.reward for report in valid},
        "reward/mean": float(np.mean([report.reward for report in valid])),
        "reward/baseline": record.baseline,
        "reward/winner": record.winner,
        "reward/failures": len(record.reports) - len(valid),
    }


def _row_HWC(images_MCHW: Uint8) -> Uint8:
    """Return M images side by side as RGB, [H, M * W, 3]."""
    row_HWC = np.concatenate(list(images_MCHW.transpose(0, 2, 3, 1)), axis=1)
    return np.broadcast_to(row_HWC, (*row_HWC.shape[:2], 3))
