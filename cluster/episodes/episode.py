"""One episode: from (incumbent, actions) to (report, trained incumbent), on a Ray actor or in this process.

Nothing here imports RLlib, so an actor starts in half the time.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import traceback
from collections.abc import Callable, Sequence

import ray
import torch

from cluster.episodes.outcomes import failed_report, status_of
from cluster.runtime.crash_traces import record_crashes
from cluster.runtime.gpus import use_assigned_gpus
from envs import BatchCompositionEnv
from rlcas.config import RunConfig, SamplerConfig
from rlcas.errors import UserError
from rlcas.types import EpisodeReport, EpisodeTask, EpisodeTrainer, Incumbent, Int64

TrainerFactory = Callable[[SamplerConfig], EpisodeTrainer]
"""Builds the trainer on the actor, with the settings of the sampler that searches or resumes; small and picklable:
a function or class of a module, or functools.partial of one."""


def check_factory(trainer_factory: TrainerFactory) -> None:
    """Check that a trainer factory can be called with the sampler's settings.

    Raises:
        UserError: it takes no argument, needs more than one, or cannot be called.
    """
    try:
        inspect.signature(trainer_factory).bind(SamplerConfig())
    except ValueError:
        return  # a callable written in C may have no signature to look at
    except TypeError as error:
        function = getattr(trainer_factory, "func", trainer_factory)  # a partial's text may hold whole arrays
        name = getattr(function, "__qualname__", None) or repr(function)
        raise UserError(
            f"trainer_factory {name} does not take the sampler's settings ({error}): it is called with one argument, "
            "an rlcas.config.SamplerConfig"
        ) from error


class Episodes:
    """Holds one environment; each call is pure, so that a retry on a fresh process gives the same bits.

    Args:
        trainer_factory: builds what trains an epoch, at the first call.
        sampler: the sampler's settings.
    """

    def __init__(self, trainer_factory: TrainerFactory, sampler: SamplerConfig) -> None:
        self._trainer_factory = trainer_factory
        self._sampler = sampler

    # Not in the constructor: an error there reaches the driver as ActorDiedError, without the exception
    # itself, and the driver shows a UserError in one line.
    @functools.cached_property
    def _env(self) -> BatchCompositionEnv:
        check_factory(self._trainer_factory)
        trainer = self._trainer_factory(self._sampler)
        # With a trainer given, the environment reads no settings but the sampler's.
        return BatchCompositionEnv(RunConfig(sampler=self._sampler), trainer=trainer)

    def ping(self) -> int:
        """Build the environment and return its number of classes.

        Raises:
            RuntimeError: the trainer's factory called sys.exit.
        """
        try:
            return self._env.num_classes
        except SystemExit as error:  # Ray would end the actor without an error
            raise RuntimeError(f"the trainer's factory called sys.exit({error.code!r})") from error

    def initial(self, counts_C: Int64) -> Incumbent:
        """Return the untrained classifier with the composition `counts_C`."""
        return self._env.initial(counts_C)

    def outcomes(
        self, incumbent: Incumbent, tasks: Sequence[EpisodeTask]
    ) -> tuple[list[EpisodeReport], Incumbent | None]:
        """Train episodes in turn, the first from `incumbent` and each other one from what the last valid one reached.

        Returns:
            The reports, without rewards, and what the last valid episode trained; None where all failed.
        """
        reports: list[EpisodeReport] = []
        reached = None
        for task in tasks:
            report, trained = self._outcome(reached or incumbent, task)
            reports.append(report)
            reached = trained or reached
        return reports, reached

    def merged(self, *incumbents: Incumbent) -> Incumbent:
        """Return the mean of classifiers that were trained from one, with its result."""
        return self._env.merged(incumbents)

    def _outcome(self, incumbent: Incumbent, task: EpisodeTask) -> tuple[EpisodeReport, Incumbent | None]:
        try:
            self._env.reset(options={"incumbent": incumbent, "task": task})
            return self._env.train(task.actions_C), self._env.incumbent
        except (Exception, SystemExit) as error:
            # Returned, as a failure is an outcome; sys.exit would end the actor without a traceback.
            failed = failed_report(task, self._sampler)
            status = status_of(error)
            return dataclasses.replace(failed, status=status, traceback=traceback.format_exc()), None


class EpisodeActor(Episodes):
    """Episodes in a process of their own.

    Args:
        trainer_factory: builds what trains an epoch, on the actor at its first call.
        sampler: the sampler's settings.
        num_threads: torch threads of an episode.
    """

    def __init__(self, trainer_factory: TrainerFactory, sampler: SamplerConfig, num_threads: int) -> None:
        use_assigned_gpus()  # first: CUDA reads the variable only once
        record_crashes()
        # Ray derives OMP_NUM_THREADS from the reserved CPUs, but the number decides the last bits.
        torch.set_num_threads(num_threads)
        super().__init__(trainer_factory, sampler)

    @ray.method(num_returns=2)
    def episodes(
        self, incumbent: Incumbent, tasks: Sequence[EpisodeTask]
    ) -> tuple[list[EpisodeReport], Incumbent | None]:
        """Return `outcomes`, as two objects: Ray then moves the small reports alone, and only what is kept is fetched.

        Args:
            incumbent: what the first episode starts from.
            tasks: the episodes that this worker trains in turn.
        """
        return self.outcomes(incumbent, tasks)
