"""TensorBoard events of a run: the agents' actions, the classifier's metrics, the synthesiser's losses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlcas.config import RunConfig
from rlcas.settings import as_yaml
from rlcas.tracking import charts
from rlcas.types import EpochRecord, Uint8

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS_FOLDER = "tensorboard"
GALLERY_ROWS = ("real", "real_sketch", "synthetic", "synthetic_sketch")


class Tracker:
    """Writes a run's TensorBoard events below `folder`/tensorboard.

    The epochs and each part of the synthesiser count their own steps, so each is a TensorBoard run of its
    own. A resumed run replaces all steps from the first one that it logs again.

    Args:
        folder: the run's folder.
        class_names: C names. Up to `rlcas.tracking.charts.MOST_SCALAR_CLASSES` classes have their own scalars, with
            their names in the tags; more classes are shown as histograms.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self._folder = folder / EVENTS_FOLDER
        self._tags_C = [f"{c:02d}_{_as_tag(name)}" for c, name in enumerate(class_names)]
        self._writers: dict[str, SummaryWriter] = {}

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def settings(self, config: RunConfig) -> None:
        """Write the resolved settings as text, and the layout of the page Custom Scalars."""
        # TensorBoard renders text as Markdown, in which four spaces make a block of code with its line breaks.
        indented = "\n".join(f"    {line}" for line in as_yaml(config).splitlines())
        self._writer("run", 0).add_text("settings", indented, 0)
        self._writer("run", 0).add_custom_scalars(charts.layout(config.sampler.metric, self._tags_C))

    def notes(self, notes: Sequence[str]) -> None:
        """Write the notes on the data as text, such as the classes that no validation image is of."""
        if notes:
            self._writer("run", 0).add_text("notes", "\n".join(f"- {note}" for note in notes), 0)

    def epoch(self, record: EpochRecord) -> None:
        """Write everything about one epoch at step `record.epoch`."""
        writer = self._writer("epochs", record.epoch)
        for tag, value in charts.scalars(record, self._tags_C).items():
            _add_scalar(writer, tag, value, record.epoch)
        for tag, values_C in charts.histograms(record).items():
            writer.add_histogram(tag, values_C, record.epoch)
        writer.flush()

    def stages(self, seconds: Mapping[str, float]) -> None:
        """Write the seconds of each stage of the run."""
        for name, value in seconds.items():
            self._writer("stages", 0).add_scalar(f"stages/{name}_seconds", value, 0)

    def synthesis(self, part: str, step: int, figures: Mapping[str, float]) -> None:
        """Write figures of a part of the synthesiser ("autoencoder", "denoiser") at its optimiser step."""
        writer = self._writer(part, step)
        for name, value in figures.items():
            writer.add_scalar(f"synthesis/{part}/{name}", value, step)

    def gallery(self, arrays: Mapping[str, Uint8]) -> None:
        """Write a grid for each class: rows of real images, their sketches, synthetic images, their sketches.

        Args:
            arrays: some of `real`, `real_sketch`, `synthetic`, `synthetic_sketch`, each
                [C, M, channels, H, W] uint8.
        """
        writer = self._writer("images", 0)
        rows = [name for name in GALLERY_ROWS if name in arrays]
        for c, tag in enumerate(self._tags_C[: charts.MOST_SCALAR_CLASSES]):
            grid_HWC = np.concatenate([_row_HWC(arrays[name][c]) for name in rows])
            writer.add_image(f"images/{tag}", grid_HWC, 0, dataformats="HWC")
        writer.flush()

    def close(self) -> None:
        """Flush and close every file."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, part: str, step: int) -> SummaryWriter:
        if part not in self._writers:
            from torch.utils.tensorboard import SummaryWriter  # it takes seconds to import

            # By purge_step, TensorBoard drops what an interrupted process wrote from this step on.
            self._writers[part] = SummaryWriter(str(self._folder / part), purge_step=step)
        return self._writers[part]


def _as_tag(name: str) -> str:
    """Return a class name as one level of a tag, without /, which would start a new level."""
    return re.sub(r"[^\w.-]+", "_", name)


def _add_scalar(writer: SummaryWriter, tag: str, value: float, step: int) -> None:
    """Write a scalar with the description of its chart, which `SummaryWriter.add_scalar` has no argument for."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

    about = SummaryMetadata(summary_description=charts.meaning(tag))
    point = Summary.Value(tag=tag, simple_value=value, metadata=about)
    writer._get_file_writer().add_summary(Summary(value=[point]), step)


def _row_HWC(images_MCHW: Uint8) -> Uint8:
    """Return M images side by side as RGB, [H, M * W, 3]."""
    row_HWC = np.concatenate(list(images_MCHW.transpose(0, 2, 3, 1)), axis=1)
    return np.broadcast_to(row_HWC, (*row_HWC.shape[:2], 3))
