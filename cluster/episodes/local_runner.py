"""The K episodes of a run one after another in this process: to debug, and for machines too small for K processes."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.episodes.episode import Episodes, TrainerFactory
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.devices import torch_threads
from rlcas.errors import UserError
from rlcas.types import EpisodeReport, EpisodeTask, Incumbent, Int64


class LocalEpisodes:
    """An `EpisodeRunner` with the bits of `actor_runner.EpisodeActors`; a reference is the incumbent itself.

    Nothing is retried: what ends an episode's process ends the run.

    Args:
        trainer_factory: builds the trainer, once for all K.
        sampler: the sampler's settings.
        cluster: how many torch threads an episode has.

    Raises:
        UserError: `cluster.gpus_per_episode` is set, which only actors share out.
    """

    def __init__(self, trainer_factory: TrainerFactory, sampler: SamplerConfig, cluster: ClusterConfig) -> None:
        if cluster.gpus_per_episode:
            raise UserError(
                f"cluster.gpus_per_episode {cluster.gpus_per_episode:g} is for cluster.episode_runner actors, not "
                f"for {cluster.episode_runner}: leave it out"
            )
        threads = cluster.concrete(sampler.num_workers).threads_per_episode
        assert threads is not None, "the settings are concrete"
        self._num_threads = threads
        self._episodes = Episodes(trainer_factory, sampler)
        self._episodes.ping()  # builds the trainer, so that its errors come here, as with actors

    def initial(self, counts_C: Int64) -> Incumbent:
        """Return the untrained classifier with the composition `counts_C`."""
        return self._episodes.initial(counts_C)

    def train_epoch(
        self, parents_W: Sequence[Incumbent], tasks_W: Sequence[Sequence[EpisodeTask]]
    ) -> tuple[list[EpisodeReport], list[Incumbent | None]]:
        """Train the episodes of each worker from its parent; return all reports, and what each worker reached."""
        # As many threads as an actor would have: another number changes the last bits.
        with torch_threads(self._num_threads):
            outcomes_W = [
                self._episodes.outcomes(parent, tasks) for parent, tasks in zip(parents_W, tasks_W, strict=True)
            ]
        return [report for reports, _ in outcomes_W for report in reports], [
            reached for _, reached in outcomes_W
        ]

    def merge(self, references: Sequence[Incumbent]) -> Incumbent:
        """Return the mean of classifiers that were trained from one."""
        with torch_threads(self._num_threads):
            return self._episodes.merged(*references)

    def put(self, incumbent: Incumbent) -> Incumbent:
        """Return the incumbent itself."""
        return incumbent

    def fetch(self, reference: Incumbent | None) -> Incumbent | None:
        """Return the incumbent itself."""
        return reference

    def close(self) -> None:
        """Do nothing: the episodes have no process of their own."""
