"""The folder of a run: the places in it, and how a new one is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlcas import settings
from rlcas.config import RunConfig
from rlcas.runs.paths import check_run_is_new, naming_out, resolved
from rlcas.storage import remote

ERROR_FILE = "error.txt"
"""Below the folder of a cell, trial or pool that failed: its traceback."""
POOLS_FOLDER = "pools"
"""Below the folder of a comparison or sweep: a run's folder for each phase one."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The places in a run's folder."""

    path: Path

    @property
    def prepared(self) -> Path:
        """Training and validation images as mapped arrays."""
        return self.path / "prepared"

    @property
    def split(self) -> Path:
        """Names, classes and hashes of the images of each split, decided when the run began."""
        return self.path / "split.json"

    @property
    def synth(self) -> Path:
        """The synthesiser: a diffusers pipeline, and its figures."""
        return self.path / "synth"

    @property
    def pool(self) -> Path:
        """Synthetic images."""
        return self.path / "pool"

    @property
    def pool_only(self) -> Path:
        """The classifier that was trained on synthetic images alone."""
        return self.path / "pool_only"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, from which `rlcas resume` continues."""
        return self.path / "checkpoints"

    @property
    def population(self) -> Path:
        """Files of a population's members, as runs begun before populations had checkpoints may still have them."""
        return self.path / "population"

    @property
    def replay(self) -> Path:
        """Settings and epochs of the run that this one replays."""
        return self.path / "replay"

    @property
    def synthesis_log(self) -> Path:
        """Losses of the synthesiser, a line each time that they are logged."""
        return self.path / "synthesis_log.jsonl"

    @property
    def gallery(self) -> Path:
        """A few real and synthetic images of each class, with their sketches."""
        return self.path / "gallery.npz"

    @property
    def timings(self) -> Path:
        """Seconds of each stage."""
        return self.path / "timings.json"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.path / "report.html"

    @property
    def judge(self) -> Path:
        """The classifier of real images in whose features the pool is compared with them."""
        return self.path / "judge"

    @property
    def taught_by_pool(self) -> Path:
        """Predictions of small classifiers that were trained with the pool, under each seed."""
        return self.path / "usefulness" / "pool"

    @property
    def taught_by_repeats(self) -> Path:
        """Predictions of small classifiers that were trained with repeated real images, under each seed."""
        return self.path / "usefulness" / "repeats"

    @property
    def dose(self) -> Path:
        """The composition that agents dose start from, with what is known of it."""
        return self.path / "dose.json"

    @property
    def scores(self) -> Path:
        """The pool's figures."""
        return self.path / "scores.json"

    @property
    def image_scores(self) -> Path:
        """A line for every synthetic image: its nearest training image, the distance, whether it is a copy."""
        return self.path / "scores.csv"

    @property
    def contact_sheet(self) -> Path:
        """The synthetic images that are nearest to a training image, each beside it."""
        return self.path / "contact_sheet.png"

    @property
    def metrics(self) -> Path:
        """Final figures."""
        return self.path / "metrics.json"


def create(config: RunConfig) -> RunFolder:
    """Make the run's folder and write its resolved settings, with absolute paths.

    Where `out` is an address, the folder is a local one that stands for it (`rlcas.storage.remote`).

    Raises:
        UserError: the folder exists and is not empty, or cannot be made.
    """
    out = check_run_is_new(config)
    address = remote.address_of(config.out or "")
    with naming_out(out):
        # Clears the local folder, so it comes before anything is written there.
        if address is not None:
            remote.begin(address, out)
        out.mkdir(parents=True, exist_ok=True)
        settings.save(resolved(config), out)
        remote.publish(out)
    return RunFolder(out)
