"""The K episode actors of a run: start, one epoch, end."""

from __future__ import annotations

import dataclasses

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayError

from cluster.episode import EpisodeActor, TrainerFactory, failed_report
from cluster.last_words import last_words
from cluster.start import episode_resources
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.errors import RunError, UserError
from rlcas.types import EpisodeReport, Incumbent, Int64


class EpisodeError(RunError):
    """An epoch without a usable outcome; the text holds the workers' own tracebacks."""


class Children:
    """K retrying actors, one an episode; the call of a dead one is run again on a fresh process.

    Args:
        trainer_factory: builds the trainer on each actor.
        sampler: the sampler's settings.
        cluster: where and how long the episodes run.
    """

    def __init__(self, trainer_factory: TrainerFactory, sampler: SamplerConfig, cluster: ClusterConfig) -> None:
        self._sampler, self._cluster = sampler, cluster.concrete(sampler.k)
        self._resources = _bundle() or episode_resources(cluster, sampler.k, ray.cluster_resources())
        actor = ray.remote(
            num_cpus=self._resources.get("CPU", 0),
            num_gpus=self._resources.get("GPU", 0),
            max_restarts=-1,
            max_task_retries=cluster.episode_retries,
        )(EpisodeActor)
        self._actors = [
            actor.remote(trainer_factory, sampler, self._cluster.threads_per_episode) for _ in range(sampler.k)
        ]
        self._start()

    def initial(self, counts_C: Int64) -> ray.ObjectRef:
        """Return a reference to the untrained classifier with the composition `counts_C`."""
        return self._actors[0].initial.remote(counts_C)

    def train_epoch(
        self, incumbent: ray.ObjectRef, actions_KC: list[Int64], epoch: int
    ) -> tuple[list[EpisodeReport], list[ray.ObjectRef]]:
        """Run the K episodes of `epoch` side by side; return reports and references to what they left, by child.

        An episode whose worker died more often than it is retried has the status `died`.

        Raises:
            UserError: an episode did not answer in time.
        """
        calls = [
            actor.episode.remote(incumbent, actions_C, epoch, child)
            for child, (actor, actions_C) in enumerate(zip(self._actors, actions_KC, strict=True))
        ]
        told = [report for report, _ in calls]
        waited = self._cluster.epoch_timeout_seconds
        if missing := _missing(told, waited):
            raise UserError(
                f"epoch {epoch}: episodes {missing} of {len(calls)} did not answer within "
                f"cluster.epoch_timeout_seconds {waited:g} ({self._what_ray_has()}): raise it, or look for what hangs"
            )
        try:
            reports = ray.get(told)
        except RayActorError:
            parent = ray.get(incumbent)
            reports = [
                self._report(ref, parent, actions_C, epoch, child)
                for child, (ref, actions_C) in enumerate(zip(told, actions_KC, strict=True))
            ]
        self._renew(reports)
        return reports, [left for _, left in calls]

    def fetch(self, left: ray.ObjectRef) -> Incumbent | None:
        """Return a view of what `left` stands for, which brings it to this node; None where it was lost.

        It is lost where a node died with it, and it could not be made again.
        """
        try:
            return ray.get(left, timeout=self._cluster.epoch_timeout_seconds)
        except ObjectLostError:
            return None
        except GetTimeoutError as error:
            raise UserError(
                "what an episode left did not come within cluster.epoch_timeout_seconds "
                f"{self._cluster.epoch_timeout_seconds:g} ({self._what_ray_has()}): raise it, or look for what hangs"
            ) from error

    def end(self) -> None:
        """Kill the actors."""
        for actor in self._actors:
            ray.kill(actor)

    def _start(self) -> None:
        pings = [actor.ping.remote() for actor in self._actors]
        waited = self._cluster.start_timeout_seconds
        if missing := _missing(pings, waited):
            has = self._what_ray_has()
            self.end()
            raise UserError(
                f"workers {missing} of {len(pings)} did not start within cluster.start_timeout_seconds "
                f"{waited:g}: {has}: free or add resources, lower sampler.k, or wait longer"
            )
        for child, (actor, ping) in enumerate(zip(self._actors, pings, strict=True)):
            try:
                ray.get(ping)
            except RayError as error:
                cause = getattr(error, "cause", None)
                words = last_words(actor, error) if isinstance(error, RayActorError) else error
                self.end()
                if isinstance(cause, UserError):
                    raise cause from error
                raise EpisodeError(f"worker {child} of {len(pings)} cannot be built: {words}") from error

    def _what_ray_has(self) -> str:
        asked = " and ".join(f"{amount:g} {kind}" for kind, amount in self._resources.items())
        total, free = ray.cluster_resources(), ray.available_resources()
        has = ", ".join(
            f"{total.get(kind, 0):g} {kind} of which {free.get(kind, 0):g} free" for kind in self._resources
        )
        return f"each asks {asked}; Ray has {has}"

    def _renew(self, reports: list[EpisodeReport]) -> None:
        """Restart the processes that failed: an error of CUDA stays in its process, and so may used memory."""
        for actor, report in zip(self._actors, reports, strict=True):
            if report.status in ("exception", "out_of_memory"):
                ray.kill(actor, no_restart=False)

    def _report(
        self, ref: ray.ObjectRef, parent: Incumbent, actions_C: Int64, epoch: int, child: int
    ) -> EpisodeReport:
        """Return the episode's report; where its worker died, one that says so, with its last words."""
        try:
            return ray.get(ref)
        except RayActorError as error:
            retries = self._cluster.episode_retries
            words = last_words(self._actors[child], error)
            words = f"the worker died, after cluster.episode_retries {retries} too: {words}"
            failed = failed_report(parent.counts_C, actions_C, epoch, child, self._sampler)
            return dataclasses.replace(failed, traceback=words, retries=retries)


def _missing(refs: list[ray.ObjectRef], timeout_seconds: float) -> list[int]:
    _, pending = ray.wait(refs, num_returns=len(refs), timeout=timeout_seconds)
    return [child for child, ref in enumerate(refs) if ref in pending]


def _bundle() -> dict[str, float]:
    """Return what a Tune trial reserved for one episode: its last bundle; empty outside of Tune."""
    group = ray.util.get_current_placement_group()
    return group.bundle_specs[-1] if group else {}
