"""The content of a run's folder: settings, data, epochs, metrics, images; missing parts are None or empty."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict  # pydantic refuses typing's own before Python 3.12

from rlcas import settings
from rlcas.config import RunConfig
from rlcas.data.prepared import DATA_FILE, DataFacts, read_data_facts
from rlcas.errors import UserError
from rlcas.metrics import absence_note
from rlcas.runs.epoch_log import EPOCHS_FILE, check_epochs, incumbent_of, read_epochs, read_lines
from rlcas.runs.folder import RunFolder
from rlcas.storage.atomic import read_facts
from rlcas.storage.reading import RESTORE, read_arrays, typed
from rlcas.types import Float64, Uint8

UNIFORM = 1 / 3
HARDLY_MOVED = 0.05
"""Policies within this distance of uniform are practically random."""
MOST_OFFSETS = 12
"""Classes whose offsets are named, each."""


class Metrics(TypedDict, total=False):
    """The groups of metrics.json."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    epochs: int
    test: dict[str, Any]
    offset: list[float]
    synthesis: dict[str, Any]
    seconds: dict[str, float]
    versions: dict[str, str]


_METRICS = TypeAdapter(Metrics)
_SECONDS = TypeAdapter(dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """The content of a run's folder."""

    config: RunConfig
    settings_text: str
    """The text of config.yaml."""
    data: DataFacts | None
    epochs: list[dict[str, Any]]
    metrics: dict[str, Any]
    """Empty until the run is finished."""
    seconds: dict[str, float]
    gallery: dict[str, Uint8] | None
    """`real`, `real_sketch`, `synthetic`, `synthetic_sketch`: [C, M, channels, H, W] uint8."""
    synthesis_log: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Return the data set's name; the setting `data` until the data are prepared."""
        return self.data["name"] if self.data else self.config.data

    @property
    def class_names(self) -> list[str]:
        """Return [C] names; numbers if the data are not prepared."""
        if self.data:
            return self.data["class_names"]
        num_classes = len(self.epochs[0]["probabilities"]) if self.epochs else 0
        return [f"class {c}" for c in range(num_classes)]

    @property
    def test(self) -> dict[str, Any] | None:
        """Return the test metrics."""
        return self.metrics.get("test")

    @property
    def absence_notes(self) -> list[str]:
        """Return the notes on classes without test images, and without patients where the images have these."""
        units = {"test image": self.test, "test patient": self.metrics.get("test_per_patient")}
        found = (
            # An older metrics.json has neither.
            absence_note(unit, figures.get("absent_classes", ()), figures.get("averaged_classes"))
            for unit, figures in units.items()
            if figures
        )
        return [note for note in found if note]

    @property
    def offset_note(self) -> str | None:
        """Return a sentence on the decision offset; None for a classifier without one."""
        offset_C = self.metrics.get("offset")
        if not offset_C:
            return None
        pairs = list(zip(offset_C, self.class_names, strict=False))
        shown = pairs if len(pairs) <= MOST_OFFSETS else [min(pairs), max(pairs)]
        named = ", ".join(f"{name} {value:+.2f}" for value, name in shown)
        return (
            f"Predictions subtract an offset from the logits that was fitted on validation: {named}"
            + f" (the least and the largest of {len(pairs)})" * (len(pairs) > MOST_OFFSETS)
            + ". AUC, average precision and log-loss are of the probabilities before it."
        )

    @property
    def is_trained_further(self) -> bool:
        """Return whether the test metrics are those of an earlier end, after fewer epochs than the settings have."""
        # An older metrics.json does not say.
        return self.metrics.get("epochs", self.config.sampler.epochs) != self.config.sampler.epochs

    @property
    def missing(self) -> list[str]:
        """Return the names of the parts that the folder does not have yet."""
        expected = {
            "prepared data": self.data,
            "training log of the synthesiser": self.synthesis_log or self.config.pool,
            "epochs of the sampler": self.epochs,
            "example images": self.gallery,
            "test figures": self.test,
            f"test figures of all {self.config.sampler.epochs} epochs": not self.is_trained_further,
        }
        return [part for part, content in expected.items() if not content]

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Return the failed episodes: epoch, episode, status, traceback."""
        return [
            {
                "epoch": line["epoch"],
                "episode": episode_index,
                "status": status,
                "traceback": line["tracebacks"][episode_index],
            }
            for line in self.epochs
            for episode_index, status in enumerate(line["statuses"])
            if status != "ok"
        ]

    @property
    def retries(self) -> int:
        """Return how often an episode was retried because its worker or its node died."""
        return sum(sum(line.get("retries", [])) for line in self.epochs)

    def winners(self, key: str) -> list[Any]:
        """Return, for each epoch, the surviving episode's value of `key`, a list of K; None where several merged."""
        return [None if line["winner"] is None else line[key][line["winner"]] for line in self.epochs]

    def incumbents(self, key: str) -> list[Any]:
        """Return, for each epoch, `composition` or `metrics` of the incumbent."""
        return [incumbent_of(line)[key] for line in self.epochs]

    def probabilities_TC3(self) -> Float64:
        """Return [T, C, 3]: the policies of each epoch."""
        return np.array([line["probabilities"] for line in self.epochs])

    @property
    def fits_curves(self) -> bool:
        """Return whether the agents fitted response curves."""
        return bool(self.epochs) and self.epochs[-1].get("curves") is not None

    def moved(self) -> float:
        """Return the largest distance of any policy from uniform in any epoch: max |p − 1/3|."""
        return float(np.abs(self.probabilities_TC3() - UNIFORM).max())


def read_run(path: Path) -> RunFacts:
    """Read a run's folder.

    Raises:
        UserError: it is not a run's folder, or a file in it is damaged.
    """
    folder = RunFolder(path)
    config = settings.load(path)
    metrics = typed(read_facts(folder.metrics), _METRICS, folder.metrics)
    epochs = read_epochs(path)
    check_epochs(epochs, path / EPOCHS_FILE)
    return RunFacts(
        config=config,
        settings_text=(path / settings.CONFIG_FILE).read_text(encoding="utf-8"),
        data=read_data_facts(folder.prepared) if (folder.prepared / DATA_FILE).exists() else None,
        epochs=epochs,
        metrics={**metrics},
        # timings.json is there from the first stage on, metrics.json only at the end.
        seconds=metrics.get("seconds") or typed(read_facts(folder.timings), _SECONDS, folder.timings),
        gallery=_gallery(folder.gallery),
        synthesis_log=read_lines(folder.synthesis_log),
    )


def _gallery(path: Path) -> dict[str, Uint8] | None:
    if not path.exists():
        return None
    arrays = read_arrays(path, RESTORE)
    if any((array.dtype, array.ndim) != (np.uint8, 5) or not array.size for array in arrays.values()):
        raise UserError(f"{path} is altered (it holds no images by class): {RESTORE}")
    return arrays
