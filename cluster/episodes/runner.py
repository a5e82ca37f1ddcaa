"""What runs an epoch's episodes: the protocol, the runners by name, and one epoch that a lost node repeats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cluster.episodes.actor_runner import EpisodeActors
from cluster.episodes.episode import TrainerFactory
from cluster.episodes.local_runner import LocalEpisodes
from cluster.episodes.selection import EpisodeError
from rlcas.batches.composition import initial_counts
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.types import EpisodeReport, Incumbent, Int64


class EpisodeRunner(Protocol):
    """Runs the episodes of an epoch, wherever that is; a reference stands for an incumbent that may be elsewhere."""

    def initial(self, counts_C: Int64) -> Any:
        """Return a reference to the untrained classifier with the composition `counts_C`."""
        ...

    def put(self, incumbent: Incumbent) -> Any:
        """Return a reference to `incumbent`."""
        ...

    def fetch(self, reference: Any) -> Incumbent | None:
        """Return the incumbent, which brings it to this node; None where it was lost with its node."""
        ...

    def train_epoch(
        self, parents_K: Sequence[Any], actions_KC: Sequence[Int64], epoch: int
    ) -> tuple[list[EpisodeReport], list[Any]]:
        """Train K episodes, each from its own parent, and return their reports and references, by episode.

        Args:
            parents_K: references, which may be one and the same.
            actions_KC: [C] each, indices of -step, 0 and +step.
            epoch: from 1.

        Returns:
            The reports, without rewards, and references to the trained incumbents: only those of valid episodes can be
            fetched.
        """
        ...

    def close(self) -> None:
        """End what runs the episodes."""
        ...


EPISODE_RUNNERS: dict[str, Callable[[TrainerFactory, SamplerConfig, ClusterConfig], EpisodeRunner]] = {
    "actors": EpisodeActors,
    "in_process": LocalEpisodes,
}
"""By the setting `cluster.episode_runner`."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained incumbent."""

    reference: Any
    """What an episode of the next epoch can start from."""
    incumbent: Incumbent
    """A view of it on this node."""


def start(
    trainer_factory: TrainerFactory, sampler: SamplerConfig, cluster: ClusterConfig, num_classes: int
) -> tuple[EpisodeRunner, Trained]:
    """Start the runner of `cluster.episode_runner`; return it and the untrained classifier.

    Args:
        trainer_factory: builds what trains an epoch.
        sampler: the sampler's settings.
        cluster: where and how long the episodes run.
        num_classes: C.
    """
    runner = EPISODE_RUNNERS[cluster.episode_runner](trainer_factory, sampler, cluster)
    try:
        return runner, _fetched(runner, runner.initial(initial_counts(sampler, num_classes)))
    except BaseException:  # after Ctrl-C too: actors hold their resources until they are killed
        runner.close()
        raise


def put(runner: EpisodeRunner, incumbent: Incumbent) -> Trained:
    """Return `incumbent` as one that the runner's episodes can start from."""
    return _fetched(runner, runner.put(incumbent))


def _fetched(runner: EpisodeRunner, reference: Any) -> Trained:
    incumbent = runner.fetch(reference)
    assert incumbent is not None, "it was made or put just now"
    return Trained(reference, incumbent)


def train_epoch(
    runner: EpisodeRunner,
    parents_K: Sequence[Trained],
    actions_KC: Sequence[Int64],
    epoch: int,
    *,
    reward_reports: Callable[[list[EpisodeReport]], list[EpisodeReport]],
    indices_to_fetch: Callable[[list[EpisodeReport]], Sequence[int]],
    retries: int,
) -> tuple[list[EpisodeReport], dict[int, Trained]]:
    """Train the K episodes of an epoch and fetch the incumbents that are needed of it.

    Where one of these was lost with its node, the epoch is run again, to the same bits.

    Args:
        runner: runs the episodes.
        parents_K: what each episode starts from.
        actions_KC: [C] each, indices of -step, 0 and +step.
        epoch: from 1.
        reward_reports: returns the reports with their rewards.
        indices_to_fetch: returns, from the rewarded reports, the episodes whose incumbents are fetched.
        retries: how often the epoch may be run again.

    Returns:
        The rewarded reports, and the incumbents that were fetched by the index of the episode.

    Raises:
        EpisodeError: incumbents that are needed were lost each time.
    """
    references_K = [parent.reference for parent in parents_K]
    # Episodes are pure functions: another run of the epoch has the same rewards, and so the same winner.
    for lost in range(1 + retries):
        reports, outputs_K = runner.train_epoch(references_K, actions_KC, epoch)
        reports = reward_reports(reports)
        fetched = {index: runner.fetch(outputs_K[index]) for index in indices_to_fetch(reports)}
        trained = {
            index: Trained(outputs_K[index], incumbent)
            for index, incumbent in fetched.items()
            if incumbent is not None
        }
        if len(trained) == len(fetched):
            if lost:
                reports = [replace(report, retries=report.retries + lost) for report in reports]
            return reports, trained
    raise EpisodeError(f"epoch {epoch}: its trained classifier was lost with its node, {1 + retries} times")
