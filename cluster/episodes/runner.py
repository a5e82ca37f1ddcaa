"""What runs an epoch's episodes: the protocol, the runners by name, and one epoch that a lost node repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cluster.episodes.actor_runner import EpisodeActors
from cluster.episodes.episode import TrainerFactory
from cluster.episodes.local_runner import LocalEpisodes
from cluster.episodes.selection import EpisodeError
from rlcas.batches.composition import initial_counts
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.types import EpisodeReport, EpisodeTask, Incumbent, Int64


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
        self, parents_W: Sequence[Any], tasks_W: Sequence[Sequence[EpisodeTask]]
    ) -> tuple[list[EpisodeReport], list[Any]]:
        """Train the K episodes of an epoch on W workers, each of which trains its own in turn from its own parent.

        Args:
            parents_W: references, which may be one and the same.
            tasks_W: the episodes of each worker, K in all.

        Returns:
            The K reports, without rewards, and W references to what each worker's last valid episode trained, which
            cannot be fetched where all of its episodes failed.
        """
        ...

    def merge(self, references: Sequence[Any]) -> Any:
        """Return a reference to the mean of classifiers that were trained from one."""
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
    parents_W: Sequence[Trained],
    tasks_W: Sequence[Sequence[EpisodeTask]],
    *,
    reward_reports: Callable[[list[EpisodeReport]], list[EpisodeReport]],
    kept: Callable[[list[EpisodeReport], Sequence[Any]], Mapping[int, Any]],
    retries: int,
) -> tuple[list[EpisodeReport], dict[int, Trained]]:
    """Train the K episodes of an epoch and fetch the incumbents that are kept of it.

    Where one of these was lost with its node, the epoch is run again, to the same bits.

    Args:
        runner: runs the episodes.
        parents_W: what each worker starts from.
        tasks_W: the episodes of each worker.
        reward_reports: returns the reports with their rewards.
        kept: returns, from the rewarded reports and the workers' references, references to the incumbents that are
            fetched, by number.
        retries: how often the epoch may be run again.

    Returns:
        The rewarded reports, and the incumbents that were fetched, by number.

    Raises:
        EpisodeError: incumbents that are needed were lost each time.
    """
    references_W = [parent.reference for parent in parents_W]
    # Episodes are pure functions: another run of the epoch has the same rewards, and so keeps the same.
    for lost in range(1 + retries):
        reports, outputs_W = runner.train_epoch(references_W, tasks_W)
        reports = reward_reports(reports)
        references = kept(reports, outputs_W)
        fetched = {number: runner.fetch(reference) for number, reference in references.items()}
        trained = {
            number: Trained(references[number], incumbent)
            for number, incumbent in fetched.items()
            if incumbent is not None
        }
        if len(trained) == len(fetched):
            if lost:
                reports = [replace(report, retries=report.retries + lost) for report in reports]
            return reports, trained
    epoch = reports[0].epoch
    raise EpisodeError(f"epoch {epoch}: its trained classifier was lost with its node, {1 + retries} times")
