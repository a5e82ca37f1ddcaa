"""One member of a population: a Tune trial that trains an episode an epoch and keeps its state on disk.

Nothing here imports RLlib, and Tune starts a fresh process for every member in every epoch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from cluster.episodes.episode import EpisodeActor
from cluster.episodes.incumbent_file import read_incumbent, write_incumbent
from cluster.population.epochs import Place
from rlcas.batches.composition import KEEP, initial_counts
from rlcas.training.fit import selection_key

PLACE = "place"
REPORT = "report"
SCORE = "score"
TIE = "tie"
"""In a result: what the larger is the better of where scores are equal."""


class Member(tune.Trainable):
    """A classifier with a composition of its own; an epoch is the episode that any other agents would get.

    What an epoch leaves lies in `left_by`, there before Tune knows of it: a population's scheduler may give a member
    the state of another while its own checkpoint is still under way, so Tune's checkpoints hold the epoch alone.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Build the environment and the untrained classifier."""
        self._place: Place = config[PLACE]
        self._folder: Path = config["folder"]
        self._sampler = config["sampler"]
        self._episodes = EpisodeActor(config["trainer_factory"], self._sampler, config["threads"])
        self._initial = self._episodes.initial(initial_counts(self._sampler, self._episodes.ping()))
        self._incumbent = self._initial

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another member's place in this process; it is restored next, unless it is yet to begin."""
        self._place, self._incumbent = new_config[PLACE], self._initial
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch; the result holds the report, and its key for selection as score and tie.

        Raises:
            RuntimeError: the episode failed; the text holds its traceback.
        """
        place, parent = self._place, self._incumbent
        acts = parent.epoch == place.epoch
        actions_C = np.array(place.actions) if acts else np.full(len(parent.counts_C), KEEP)
        report, left = self._episodes.episode(parent, actions_C, parent.epoch + 1, place.member)
        if left is None:
            raise RuntimeError(
                f"epoch {parent.epoch + 1}: member {place.member} of the population failed ({report.status})\n"
                f"{report.traceback}"
            )
        write_incumbent(left, left_by(self._folder, left.epoch, place.member))
        self._incumbent = left
        score, tie = selection_key(report.result, self._sampler.metric)
        return {SCORE: score, TIE: tie, REPORT: report}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, int]:
        """Return the epoch, at which a member is restored: from its own state or its parent's."""
        return {"epoch": self._incumbent.epoch}

    def load_checkpoint(self, checkpoint: dict[str, int]) -> None:
        """Go on from what the parent left, where Tune gave this member another's place now, else from its own."""
        epoch, place = checkpoint["epoch"], self._place
        self._incumbent = read_incumbent(
            left_by(self._folder, epoch, place.parent if epoch == place.epoch else place.member)
        )


def left_by(folder: Path, epoch: int, member: int) -> Path:
    """Return the file of what `member` left after `epoch`."""
    return folder / f"epoch-{epoch:04d}" / f"member-{member}.safetensors"
