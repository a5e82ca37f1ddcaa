"""The sampler as an RLlib Algorithm: K episodes on Ray actors, one REINFORCE update an epoch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune import PlacementGroupFactory

from cluster.episodes import runner
from cluster.episodes.checkpoint import BEST, CorruptCheckpointError, Snapshot
from cluster.episodes.handover import (
    by_worker,
    composition_after,
    handover_in,
    reference_to_keep,
    winner_of,
)
from cluster.episodes.outcomes import with_valid_rewards
from cluster.episodes.selection import better
from cluster.rllib.learner import ReinforceLearner, learner_batch
from cluster.rllib.results import results_of
from cluster.rllib.sampler_settings import SamplerSettings
from cluster.runtime.connection import ensure_ray
from cluster.runtime.placement import fitting
from cluster.runtime.resources import episode_resources
from envs.observations import Observer, names_of
from rlcas.batches.composition import ACTIONS, KEEP, shows_synthetic
from rlcas.devices import torch_threads
from rlcas.errors import UserError
from rlcas.reinforce import draw_actions
from rlcas.rewards import reward_named, with_advantages, without_trend
from rlcas.runs import replay
from rlcas.seeding import rng_for
from rlcas.types import EpisodeReport, EpisodeTask, EpochRecord, Float32, Float64, Incumbent, Int64, Share

INCUMBENT = "incumbent"
LEARNER = "learner"
"""Like `BEST`, names of what a checkpoint holds."""
TIMED_PHASES = ("policy", "episodes", "learning")
"""Parts of an epoch's wall time: drawing the actions, the K episodes with the winner's choice, and learning."""


class RLCASConfig(SamplerSettings):
    """Settings of `RLCAS`: every field of SamplerConfig in `.training()`, of ClusterConfig in `.episodes()`.

    Example:
        config = (
            RLCASConfig()
            .training(k=3, baseline_gamma=0.99)
            .episodes(trainer_factory=make_trainer, num_classes=8)
            .debugging(seed=0)
        )
        algorithm = config.build_algo()
        algorithm.train()
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class or RLCAS)


class RLCAS(Algorithm):
    """The RL-driven class-adaptive sampler (paper, section 2.2).

    `train()` is one epoch: K joint actions drawn from one policy, K one-epoch trainings from the incumbent,
    the best by validation metric becomes the incumbent, and the agents learn from the valid episodes.

    Under Ray Tune, `tune.Tuner(RLCAS, param_space=config, run_config=...)` takes `ray.tune.RunConfig`,
    `CheckpointConfig` and `FailureConfig`; those of `ray.train`, which have the same names, fail in Tune itself.
    """

    record: EpochRecord | None = None
    """The record of the last epoch."""
    best: Incumbent
    """The incumbent with the best validation metric so far; the initial one before the first epoch."""
    _next_policy: tuple[Float32, Float64] | None = None
    """What the agents see of the incumbent and their probabilities [C, 3], once they are computed."""

    @classmethod
    def get_default_config(cls) -> RLCASConfig:
        """Return the defaults."""
        return RLCASConfig()

    @classmethod
    def default_resource_request(cls, config: Any) -> PlacementGroupFactory:
        """Return what a Tune trial reserves: RLlib's own, and one bundle an episode."""
        ours = cls.get_default_config().update_from_dict(config)
        own = super().default_resource_request(config)
        if ours.episode_runner == "in_process":
            return own
        workers = ours.concrete_sampler().num_workers
        ensure_ray(workers, ours.worker_niceness)  # an episode's share depends on what Ray has
        episode = episode_resources(ours.cluster_config(), workers, ray.cluster_resources())
        # The episodes' bundles last: `EpisodeActors` finds their size there.
        return PlacementGroupFactory(
            [*own.bundles, *[fitting(episode)] * workers], strategy=ours.placement.upper()
        )

    def setup(self, config: RLCASConfig) -> None:
        """Start what runs the K episodes and make the initial incumbent."""
        # Before RLlib starts a Ray of its own.
        ensure_ray(config.concrete_sampler().num_workers, config.worker_niceness)
        super().setup(config)
        self._result_config = self.config.to_dict()
        sampler = self.config.sampler_config()
        # With the names resolved here, the actors need not import the code of agents from outside.
        self._sampler = sampler.model_copy(update={"observation": names_of(sampler)})
        self._observer, self._reward = Observer(self._sampler), reward_named(self._sampler.reward)
        self._recorded = replay.schedule(self._sampler, self.config.num_classes)
        cluster, num_classes = self.config.cluster_config(), self.config.num_classes
        self._runner, self._parent = runner.start(
            self.config.trainer_factory, self._sampler, cluster, num_classes
        )
        self.best = self.incumbent

    @property
    def incumbent(self) -> Incumbent:
        """The surviving classifier, which the next epoch starts from."""
        return self._parent.incumbent

    @property
    def epoch(self) -> int:
        """Epochs trained so far."""
        return self.incumbent.epoch

    def step(self) -> dict[str, Any]:
        """Train one epoch; the result is `done` after the last, which ends a Tune trial.

        `metric` is the incumbent's `sampler.metric`, once more and at the top: Tune's CheckpointConfig scores by no
        key below that.

        Raises:
            UserError: all epochs are trained.
        """
        if self.epoch >= self._sampler.epochs:
            raise UserError(f"sampler.epochs {self._sampler.epochs} are trained: raise it to train more")
        result = super().step()
        assert self.record is not None
        own = results_of(self.record)
        metric = own["metrics"][self._sampler.metric]
        return {**result, "rlcas": own, "metric": metric, "done": self.epoch >= self._sampler.epochs}

    def get_auto_filled_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return Tune's own entries of a result; RLlib would copy all settings anew, which no longer change."""
        return {
            **super(Algorithm, self).get_auto_filled_metrics(*args, **kwargs),
            "config": self._result_config,
        }

    def training_step(self) -> None:
        """Draw, train, choose, learn, record.

        Raises:
            EpisodeError: none of the K episodes is valid, or one did not answer.
        """
        # The policy is tiny: waking more threads for it costs several times what it computes.
        with torch_threads(1):
            times = [time.perf_counter()]
            # None before the first epoch, and after another state was loaded.
            observation_D, probabilities_C3 = self._next_policy or self._policy()
            tasks = self._tasks(probabilities_C3)
            times.append(time.perf_counter())
            reports, winner = self._train(tasks)
            times.append(time.perf_counter())
            reports, baseline, curves_CG = self._learn(observation_D, reports)
            self._next_policy = self._policy()  # now, while the learner's code is in the processor's caches
            times.append(time.perf_counter())
        assert self.best.result is not None
        self.record = EpochRecord(
            epoch=self.epoch,
            reports=tuple(reports),
            winner=winner,
            handover=handover_in(self._sampler, self.epoch),
            merged=self.incumbent.result if winner is None else None,
            base_C=tasks[0].base_C,
            next_base_C=self.incumbent.counts_C,
            baseline=baseline,
            probabilities_C3=probabilities_C3,
            best_metric=self.best.result.metrics[self._sampler.metric],
            best_epoch=self.best.epoch,
            curves_CG=curves_CG,
            seconds=times[-1] - times[0],
            seconds_by_part=dict(zip(TIMED_PHASES, np.diff(times).tolist(), strict=True)),
        )

    def _tasks(self, probabilities_C3: Float64) -> list[EpisodeTask]:
        """Return the next epoch's K episodes."""
        sampler, epoch = self._sampler, self.epoch + 1
        total = sampler.k if sampler.episode == "share" else 1
        base_C, actions_KC = self._base(), self._actions(probabilities_C3)
        return [
            EpisodeTask(
                epoch=epoch, episode_index=j, actions_C=actions_C, base_C=base_C, share=Share(j % total, total)
            )
            for j, actions_C in enumerate(actions_KC)
        ]

    def _base(self) -> Int64:
        """Return [C]: the composition that the next epoch's actions change."""
        counts_C = self.incumbent.counts_C
        if self._recorded is not None:
            return self._recorded.bases_TC[self.epoch]
        if not shows_synthetic(self._sampler, self.epoch + 1):
            return counts_C
        return self.on_learner(lambda learner: learner.agents.agents.centre(counts_C))

    def _actions(self, probabilities_C3: Float64) -> Sequence[Int64]:
        """Return the joint actions of the next epoch's K episodes."""
        if self._recorded is not None:
            return self._recorded.actions_TKC[self.epoch]
        k, seed, epoch = self._sampler.k, self.config.seed, self.epoch + 1
        if shows_synthetic(self._sampler, epoch):
            rng = rng_for(seed, "design", epoch)
            designed_KC = self.on_learner(lambda learner: learner.agents.agents.design(k, rng))
            if designed_KC is not None:
                return designed_KC
        # A seed path for each episode: its draw depends neither on K nor on draws before it.
        return [draw_actions(probabilities_C3, rng_for(seed, "actions", epoch, j)) for j in range(k)]

    def _train(self, tasks: list[EpisodeTask]) -> tuple[list[EpisodeReport], int | None]:
        """Train the K episodes; what they hand over becomes the incumbent. Return the reports and the winner."""
        sampler, before = self._sampler, self.incumbent.result
        handover = handover_in(sampler, tasks[0].epoch)
        workers = by_worker(handover, tasks)

        def rewarded(reports: list[EpisodeReport]) -> list[EpisodeReport]:
            compared = without_trend(reports, before) if handover == "in_turn" else reports
            return with_valid_rewards(compared, self._reward, sampler)

        def kept(reports: list[EpisodeReport], references: Sequence[Any]) -> dict[int, Any]:
            return {0: reference_to_keep(handover, reports, references, self._runner, sampler.metric)}

        reports, trained = runner.train_epoch(
            self._runner,
            [self._parent] * len(workers),  # one reference: each node fetches the incumbent once
            workers,
            reward_reports=rewarded,
            kept=kept,
            retries=self.config.episode_retries,
        )
        # An epoch that raised has not come here: the incumbent is as it was.
        winner = winner_of(handover, reports, sampler.metric)
        counts_C = composition_after(sampler, reports, winner, tasks[0].base_C)
        incumbent = dataclasses.replace(trained[0].incumbent, counts_C=counts_C)
        self._parent = dataclasses.replace(trained[0], incumbent=incumbent)
        self.best = better(self.best, self.incumbent, sampler.metric)
        return reports, winner

    def _learn(
        self, observation_D: Float32, reports: list[EpisodeReport]
    ) -> tuple[list[EpisodeReport], float, Float64 | None]:
        """Let the agents learn from the valid episodes; return the reports with advantages, B and the curves."""
        learns = self._recorded is None and shows_synthetic(self._sampler, self.epoch)
        if learns:
            valid = [report for report in reports if report.valid]
            batch = learner_batch(observation_D, valid, self._sampler)
            loss = self.on_learner(lambda learner: learner.learn(batch))
            # window=1: the value itself; RLlib's default is a moving average of coefficient 0.01.
            self.metrics.log_value((LEARNER_RESULTS, DEFAULT_MODULE_ID, "policy_loss"), loss, window=1)
            lifetime: tuple[str, str] = (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
            self.metrics.log_value(lifetime, len(valid), reduce="lifetime_sum")
        baseline, curves_CG = self.on_learner(lambda learner: (learner.baseline, learner.curves()))
        return with_advantages(reports, baseline, self._sampler) if learns else reports, baseline, curves_CG

    def _policy(self) -> tuple[Float32, Float64]:
        """Return what the agents see, and [C, 3], the probabilities of their actions.

        In a replay they are those of the recorded actions, in an epoch of real images alone that of no change.
        """
        observation_D, epoch = self._observer.observe(self.incumbent), self.epoch + 1
        if self._recorded is not None:
            # [K, C] -> [C, 3]: the share of the episodes that take each action. After the last epoch it is called
            # once more, and that policy is not used.
            recorded_KC = self._recorded.actions_TKC[min(epoch, len(self._recorded.actions_TKC)) - 1]
            return observation_D, np.eye(len(ACTIONS))[recorded_KC].mean(axis=0)
        if not shows_synthetic(self._sampler, epoch):
            keep_C = np.full(len(self.incumbent.counts_C), KEEP)
            return observation_D, np.eye(len(ACTIONS))[keep_C]
        return observation_D, self.on_learner(lambda learner: learner.probabilities(observation_D))

    def on_learner(self, function: Callable[[ReinforceLearner], Any]) -> Any:
        """Return what `function` returns on the learner."""
        # The one learner, in this process (num_learners 0).
        return next(iter(self.learner_group.foreach_learner(function))).get()

    def snapshot(self) -> Snapshot:
        """Return what a checkpoint holds (`cluster.episodes.checkpoint`)."""
        arrays = self.on_learner(lambda learner: learner.arrays())
        return Snapshot(incumbents={INCUMBENT: self.incumbent, BEST: self.best}, arrays={LEARNER: arrays})

    def resume(self, snapshot: Snapshot) -> None:
        """Continue from `snapshot`, to the bits of a run that did not stop.

        Raises:
            CorruptCheckpointError: a classifier is missing, or the learner or a part of it.
        """
        # All that may be missing is asked for before anything changes (`Resumable`).
        incumbent, best = snapshot.incumbent(INCUMBENT), snapshot.incumbent(BEST)
        if LEARNER not in snapshot.arrays:
            raise CorruptCheckpointError("it has no learner")
        self.on_learner(lambda learner: learner.load_arrays(snapshot.arrays[LEARNER]))
        self._start_from(incumbent)
        self.best = best
        self._iteration = incumbent.epoch  # RLlib's number of the iteration, which is in every result

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return RLlib's state and the two incumbents."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        # RLlib writes this state as pickle, so its checkpoints are for trusted folders only
        # (docs/security.md).
        for name, incumbent in ((INCUMBENT, self.incumbent), (BEST, self.best)):
            if self._check_component(name, components, not_components):
                state[name] = incumbent
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore RLlib's state and the two incumbents."""
        super().set_state(state)
        if INCUMBENT in state:
            self._start_from(state[INCUMBENT])
        self.best = state.get(BEST, self.best)

    def cleanup(self) -> None:
        """Kill the actors, then what RLlib holds."""
        self._runner.close()
        super().cleanup()

    def _start_from(self, incumbent: Incumbent) -> None:
        """Take over an incumbent that is not this process's; the agents that come with it may have learnt since."""
        self._parent, self._next_policy = runner.put(self._runner, incumbent), None
