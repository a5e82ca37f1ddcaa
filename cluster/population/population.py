"""Population-based training over the counts (`sampler.agents pbt`): a control without agents.

K members train an episode an epoch side by side, each under a composition of its own. After every epoch the worst
quarter take over the classifier of one of the best quarter, weights and counts, and act once at random.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cluster.episodes import runner
from cluster.episodes.checkpoint import BEST, CorruptCheckpointError, Snapshot
from cluster.episodes.episode import TrainerFactory
from cluster.episodes.outcomes import with_valid_rewards
from cluster.episodes.selection import EpisodeError, better, choose
from cluster.population.exchange import exchanged, first_actions, uniform
from rlcas.batches.composition import ACTIONS
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.rewards import reward_named
from rlcas.seeding import seed_for
from rlcas.training.fit import selection_key
from rlcas.types import EpisodeReport, EpisodeTask, EpochRecord, Incumbent, Int64

ACTIONS_KEY = "actions"
"""In a checkpoint's state: what the members do in the next epoch."""


class Population:
    """K members and the best classifier of all; `train()` is one epoch, as that of `cluster.RLCAS`.

    Args:
        trainer_factory: builds what trains an epoch, on each member.
        sampler: the sampler's settings; K is the number of members.
        cluster: where the members train; for `cluster.episode_runner` actors Ray must be started.
        num_classes: C.
        seed: the run's seed.

    Raises:
        UserError: a setting is wrong, or the members ask more than Ray has.
    """

    record: EpochRecord | None = None
    """The record of the last epoch."""
    best: Incumbent
    """The best classifier on validation of all members and epochs so far; the initial one before the first epoch."""

    def __init__(
        self,
        trainer_factory: TrainerFactory,
        sampler: SamplerConfig,
        cluster: ClusterConfig,
        *,
        num_classes: int,
        seed: int,
    ) -> None:
        self._sampler, self._cluster = sampler, cluster
        self._num_classes, self._seed = num_classes, seed
        self._reward = reward_named(sampler.reward)
        self._runner, start = runner.start(trainer_factory, sampler, cluster, num_classes)
        self.best = start.incumbent
        self._parents_K = [start] * sampler.k
        self._actions_KC = first_actions(sampler.k, num_classes, seed)

    @property
    def epoch(self) -> int:
        """Epochs trained so far."""
        return self._parents_K[0].incumbent.epoch

    def train(self) -> None:
        """Train all members for an epoch and let them exchange.

        Raises:
            EpisodeError: a member failed; the text holds its traceback.
        """
        epoch, metric, started = self.epoch + 1, self._sampler.metric, time.perf_counter()
        tasks_K = [
            EpisodeTask(
                epoch=epoch, episode_index=member, actions_C=actions_C, base_C=parent.incumbent.counts_C
            )
            for member, (parent, actions_C) in enumerate(zip(self._parents_K, self._actions_KC, strict=True))
        ]
        reports, trained_K = runner.train_epoch(
            self._runner,
            self._parents_K,
            [[task] for task in tasks_K],
            reward_reports=lambda reports: with_valid_rewards(reports, self._reward, self._sampler),
            kept=_all_members,
            retries=self._cluster.episode_retries,
        )
        winner = choose(reports, metric)
        self.best = better(self.best, trained_K[winner].incumbent, metric)
        # All have a result: where a member failed, `_all_members` has raised.
        keys_K = [selection_key(report.result, metric) for report in reports if report.result is not None]
        self._parents_K, self._actions_KC = exchanged(
            [trained_K[member] for member in range(self._sampler.k)],
            keys_K,
            self._num_classes,
            seed_for(self._seed, "population", epoch),  # a path for each epoch: a resumed run draws the same
        )
        self.record = self._recorded(reports, winner, tasks_K[winner].base_C, time.perf_counter() - started)

    def snapshot(self) -> Snapshot:
        """Return what the next epoch starts from, and the best classifier."""
        # Members that continue from one classifier hold one object, which a checkpoint writes once.
        incumbents = {_parent(member): parent.incumbent for member, parent in enumerate(self._parents_K)}
        actions_KC = [actions_C.tolist() for actions_C in self._actions_KC]
        return Snapshot(incumbents={**incumbents, BEST: self.best}, state={ACTIONS_KEY: actions_KC})

    def resume(self, snapshot: Snapshot) -> None:
        """Continue from `snapshot`, to the bits of a run that did not stop.

        Raises:
            CorruptCheckpointError: a member is missing, or the actions are not those of K members.
        """
        # First what may be missing, since nothing may have changed then (`Resumable`).
        parents_K = [snapshot.incumbent(_parent(member)) for member in range(self._sampler.k)]
        best, actions_KC = snapshot.incumbent(BEST), self._actions_in(snapshot)
        self._parents_K = [runner.put(self._runner, parent) for parent in parents_K]
        self._actions_KC, self.best = actions_KC, best

    def stop(self) -> None:
        """End what runs the members."""
        self._runner.close()

    def _actions_in(self, snapshot: Snapshot) -> list[Int64]:
        shape, fault = (self._sampler.k, self._num_classes), "its actions are not those of the population"
        try:
            actions_KC = np.array(snapshot.state[ACTIONS_KEY], dtype=np.int64)
        except (KeyError, ValueError, TypeError) as error:
            raise CorruptCheckpointError(fault) from error
        if actions_KC.shape != shape or not np.isin(actions_KC, range(len(ACTIONS))).all():
            raise CorruptCheckpointError(fault)
        return list(actions_KC)

    def _recorded(
        self, reports: Sequence[EpisodeReport], winner: int, base_C: Int64, seconds: float
    ) -> EpochRecord:
        assert self.best.result is not None
        return EpochRecord(
            epoch=reports[0].epoch,
            reports=tuple(reports),
            winner=winner,
            base_C=base_C,
            baseline=0.0,
            probabilities_C3=uniform(self._num_classes),
            best_metric=self.best.result.metrics[self._sampler.metric],
            best_epoch=self.best.epoch,
            seconds=seconds,
        )


def _all_members(reports: Sequence[EpisodeReport], references: Sequence[Any]) -> dict[int, Any]:
    """Return the references to what all members trained.

    Raises:
        EpisodeError: one failed; the text holds its traceback.
    """
    for report in reports:
        if not report.valid:
            raise EpisodeError(
                f"epoch {report.epoch}: member {report.episode_index} of the population failed ({report.status})\n"
                f"{report.traceback}"
            )
    return dict(enumerate(references))


def _parent(member: int) -> str:
    """Return the name of a member's next parent in a checkpoint."""
    return f"parent-{member}"
