"""The K episode actors of a run: start, one epoch, end."""

from __future__ import annotations

import ray
from ray.exceptions import RayError

from cluster.episode import EpisodeActor, TrainerFactory
from cluster.start import episode_resources
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.errors import UserError
from rlcas.types import EpisodeReport, Incumbent, Int64


class EpisodeError(RuntimeError):
    """An epoch without a usable outcome; the text holds the workers' own tracebacks."""


class Children:
    """K retrying actors, one an episode; the call of a dead one is run again on a fresh process.

    Args:
        trainer_factory: builds the trainer on each actor.
        sampler: the sampler's settings.
        cluster: where and how long the episodes run.
    """

    def __init__(self, trainer_factory: TrainerFactory, sampler: SamplerConfig, cluster: ClusterConfig) -> None:
        self._cluster = cluster
        resources = _bundle() or episode_resources(cluster, sampler.k, ray.cluster_resources())
        actor = ray.remote(
            num_cpus=resources.get("CPU", 0),
            num_gpus=resources.get("GPU", 0),
            max_restarts=-1,
            max_task_retries=cluster.episode_retries,
        )(EpisodeActor)
        self._actors = [
            actor.remote(trainer_factory, sampler, cluster.threads_per_episode) for _ in range(sampler.k)
        ]
        self._start(resources)

    def initial(self, counts_C: Int64) -> ray.ObjectRef:
        """Return a reference to the untrained classifier with the composition `counts_C`."""
        return self._actors[0].initial.remote(counts_C)

    def train_epoch(
        self, incumbent: ray.ObjectRef, actions_KC: list[Int64], epoch: int
    ) -> tuple[list[EpisodeReport], list[ray.ObjectRef]]:
        """Run the K episodes of `epoch` side by side; return reports and references to what they left, by child.

        Raises:
            EpisodeError: an episode did not answer in time, or its worker died more often than it is retried.
        """
        calls = [
            actor.episode.remote(incumbent, actions_C, epoch, child)
            for child, (actor, actions_C) in enumerate(zip(self._actors, actions_KC, strict=True))
        ]
        report_refs = [report for report, _ in calls]
        waited = self._cluster.epoch_timeout_seconds
        if missing := _missing(report_refs, waited):
            raise EpisodeError(
                f"epoch {epoch}: episodes {missing} of {len(calls)} did not answer within "
                f"cluster.epoch_timeout_seconds {waited:g}: raise it, or look for what hangs"
            )
        reports = [self._report(ref, epoch, child) for child, ref in enumerate(report_refs)]
        self._renew(reports)
        return reports, [left for _, left in calls]

    def put(self, incumbent: Incumbent) -> ray.ObjectRef:
        """Return a reference to `incumbent`, which the actors may be given."""
        return ray.put(incumbent)

    def fetch(self, left: ray.ObjectRef) -> Incumbent:
        """Return a view of what `left` stands for.

        This also brings the object to this node, so that it outlives the node that made it.
        """
        return ray.get(left)

    def end(self) -> None:
        """Kill the actors."""
        for actor in self._actors:
            ray.kill(actor)

    def _start(self, resources: dict[str, float]) -> None:
        pings = [actor.ping.remote() for actor in self._actors]
        waited = self._cluster.start_timeout_seconds
        if missing := _missing(pings, waited):
            asked = " and ".join(f"{amount:g} {kind}" for kind, amount in resources.items())
            total = {kind: ray.cluster_resources().get(kind, 0) for kind in resources}
            free = {kind: ray.available_resources().get(kind, 0) for kind in resources}
            self.end()
            raise UserError(
                f"workers {missing} of {len(pings)} did not start within cluster.start_timeout_seconds "
                f"{waited:g}: each asks {asked}; Ray has {total}, of which {free} is free: free or add "
                "resources, lower sampler.k, or wait longer"
            )
        try:
            ray.get(pings)
        except RayError as error:
            self.end()
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, UserError) else error) from error

    def _renew(self, reports: list[EpisodeReport]) -> None:
        """Restart the processes that failed: an error of CUDA stays in its process, and so may used memory."""
        for actor, report in zip(self._actors, reports, strict=True):
            if report.status in ("exception", "out_of_memory"):
                ray.kill(actor, no_restart=False)

    def _report(self, ref: ray.ObjectRef, epoch: int, child: int) -> EpisodeReport:
        try:
            return ray.get(ref)
        except RayError as error:
            raise EpisodeError(
                f"epoch {epoch}: episode {child} has no outcome after cluster.episode_retries "
                f"{self._cluster.episode_retries}: {error}"
            ) from error


def _missing(refs: list[ray.ObjectRef], timeout_seconds: float) -> list[int]:
    _, pending = ray.wait(refs, num_returns=len(refs), timeout=timeout_seconds)
    return [child for child, ref in enumerate(refs) if ref in pending]


def _bundle() -> dict[str, float]:
    """Return what a Tune trial reserved for one episode: its last bundle; empty outside of Tune."""
    group = ray.util.get_current_placement_group()
    return group.bundle_specs[-1] if group else {}
