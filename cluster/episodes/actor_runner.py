"""The K episode actors of a run: started once, then called for each epoch, at last killed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.episodes.episode import EpisodeActor, TrainerFactory
from cluster.episodes.outcomes import failed_report
from cluster.episodes.selection import EpisodeError
from cluster.runtime.crash_traces import crash_report
from cluster.runtime.placement import describe_resources, fitting, reserve
from cluster.runtime.resources import episode_resources
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.errors import UserError
from rlcas.types import EpisodeReport, EpisodeTask, Incumbent, Int64


class EpisodeActors:
    """An `EpisodeRunner` of W actors, one for each worker; the call of a dead one is run again on a fresh process.

    There are as many workers as episodes that are trained at the same time: K, or one that trains all K in turn.

    Args:
        trainer_factory: builds the trainer on each actor.
        sampler: the sampler's settings.
        cluster: where and how long the episodes run.

    Raises:
        UserError: the episodes ask for more than Ray has, do not start in time, or a setting of the trainer is wrong.
        EpisodeError: the trainer cannot be built; the text holds the worker's traceback.
    """

    def __init__(self, trainer_factory: TrainerFactory, sampler: SamplerConfig, cluster: ClusterConfig) -> None:
        self._sampler, self._cluster = sampler, cluster.concrete(sampler.num_workers)
        # Inside a Tune trial the actors are placed into the trial's own group, one bundle for each.
        trial = ray.util.get_current_placement_group()
        # The trial reserves RLlib's own bundles and then one an episode (`RLCAS.default_resource_request`),
        # so the last one is an episode's.
        demand = (
            trial.bundle_specs[-1]
            if trial
            else episode_resources(cluster, sampler.num_workers, ray.cluster_resources())
        )
        self._resources = fitting(demand)
        # A second group of our own inside a trial would take the room that other trials wait for.
        self._group = None if trial else reserve(self._resources, sampler.num_workers, cluster)
        self._ended: set[int] = set()
        self._actors: list[ray.actor.ActorHandle] = []
        try:
            self._start(trainer_factory)  # a Ctrl-C while it waits must release the group as well
        except BaseException:
            self.close()
            raise

    def initial(self, counts_C: Int64) -> ray.ObjectRef:
        """Return a reference to the untrained classifier with the composition `counts_C`."""
        retries = self._cluster.episode_retries
        return self._actors[0].initial.options(max_task_retries=retries).remote(counts_C)

    def train_epoch(
        self, parents_W: Sequence[ray.ObjectRef], tasks_W: Sequence[Sequence[EpisodeTask]]
    ) -> tuple[list[EpisodeReport], list[ray.ObjectRef | None]]:
        """Train each worker's episodes in turn, the workers side by side; return all reports and W references.

        Episodes whose worker died more often than it is retried have the status `died`.

        Raises:
            UserError: a worker did not answer in time, or did not start again.
        """
        calls: dict[int, list[ray.ObjectRef]] = {}
        reports: dict[int, list[EpisodeReport]] = {}
        retries_W, to_call = [0] * len(self._actors), set(range(len(self._actors)))
        ends_at = time.monotonic() + self._cluster.epoch_timeout_seconds
        while len(reports) < len(self._actors):
            # Living workers first: their episodes must not wait while a dead worker starts again.
            for worker in sorted(to_call, key=self._ended.__contains__):
                self._revive(worker)
                # No max_task_retries: a dead worker's call is sent again here, once it answers (`_revive`).
                calls[worker] = self._actors[worker].episodes.remote(parents_W[worker], tasks_W[worker])
            # After a death the reports that were ready are read again in the next round: `calls` keeps their
            # references, so they stay in Ray's object store.
            finished, deaths = self._gather(calls, tasks_W, ends_at)
            reports |= finished
            self._ended |= deaths.keys()
            to_call = {worker for worker in deaths if retries_W[worker] < self._cluster.episode_retries}
            for worker, error in deaths.items():
                if worker in to_call:
                    retries_W[worker] += 1
                else:
                    reports[worker] = self._died(worker, tasks_W[worker], error)
                    del calls[worker]  # else the next round would raise this death again
        self._renew(reports)
        counted = [
            report
            for worker, retries in enumerate(retries_W)
            for report in _with_retries(reports[worker], retries)
        ]
        return counted, [calls[worker][1] if worker in calls else None for worker in range(len(self._actors))]

    def merge(self, references: Sequence[ray.ObjectRef]) -> ray.ObjectRef:
        """Return a reference to the mean of classifiers that were trained from one, which the first worker computes."""
        self._revive(0)
        retries = self._cluster.episode_retries
        return self._actors[0].merged.options(max_task_retries=retries).remote(*references)

    def _gather(
        self, calls: dict[int, list[ray.ObjectRef]], tasks_W: Sequence[Sequence[EpisodeTask]], ends_at: float
    ) -> tuple[dict[int, list[EpisodeReport]], dict[int, RayActorError]]:
        """Return all reports; or, as soon as a worker has died, no report and Ray's error for each that died.

        Raises:
            UserError: a worker did not answer before `ends_at`, a time of time.monotonic().
        """
        report_refs = {worker: reports for worker, (reports, _) in calls.items()}
        try:
            reports = ray.get(list(report_refs.values()), timeout=max(0.0, ends_at - time.monotonic()))
            return dict(zip(report_refs, reports, strict=True)), {}
        except GetTimeoutError as error:
            # The hung actor is not restarted, as Ray would send it the hung call again; `close` kills it.
            hung = [worker for worker, reports in report_refs.items() if not _ready(reports)]
            missing = [task.episode_index for worker in hung for task in tasks_W[worker]]
            raise UserError(
                f"epoch {tasks_W[0][0].epoch}: episodes {missing} of {self._sampler.k} did not answer within "
                f"cluster.epoch_timeout_seconds {self._cluster.epoch_timeout_seconds:g} ({self._what_ray_has()}): "
                "raise it, or look for what hangs"
            ) from error
        except RayActorError:
            # `ray.get` raises one death, but several may have died: ask each call that is ready.
            deaths = {worker: _death(reports) for worker, reports in report_refs.items() if _ready(reports)}
            return {}, {worker: error for worker, error in deaths.items() if error is not None}

    def _revive(self, worker: int) -> None:
        """Wait until a worker that ended has started again, perhaps on another node.

        Ray itself would spend the retries of a call on the address of a node that it does not yet know to be lost.

        Raises:
            UserError: it did not start again in time.
        """
        if worker not in self._ended:
            return
        waited = self._cluster.start_timeout_seconds
        # Ray retries this call without end, so `waited` alone is the limit.
        if not _ready(self._actors[worker].__ray_ready__.options(max_task_retries=-1).remote(), waited):
            raise UserError(
                f"worker {worker} ended and did not start again within "
                f"cluster.start_timeout_seconds {waited:g}: {self._what_ray_has()}: free or add "
                "resources, then continue with `rlcas resume`"
            )
        self._ended.discard(worker)

    def fetch(self, reference: ray.ObjectRef) -> Incumbent | None:
        """Return a view of the incumbent, which brings it to this node; None where it was lost.

        It is lost where its node died and it could not be made again.

        Raises:
            UserError: it did not arrive in time.
        """
        try:
            # NumPy arrays come out of the object store as read-only views, so this copies no weights.
            return ray.get(reference, timeout=self._cluster.epoch_timeout_seconds)
        except ObjectLostError:
            return None
        except GetTimeoutError as error:
            raise UserError(
                "a trained classifier did not arrive within cluster.epoch_timeout_seconds "
                f"{self._cluster.epoch_timeout_seconds:g} ({self._what_ray_has()}): raise it, or look for what hangs"
            ) from error

    def put(self, incumbent: Incumbent) -> ray.ObjectRef:
        """Return a reference to `incumbent` that the actors can start from."""
        return ray.put(incumbent)

    def close(self) -> None:
        """Kill the actors and release their resources."""
        for actor in self._actors:
            ray.kill(actor)
        if self._group is not None:
            remove_placement_group(self._group)

    def _start(self, trainer_factory: TrainerFactory) -> None:
        """Start the actors and wait until each has built its trainer.

        Raises:
            UserError: they did not start in time, or a setting of the trainer is wrong.
            EpisodeError: a trainer cannot be built.
        """
        actor = ray.remote(
            num_cpus=self._resources.get("CPU", 0),
            num_gpus=self._resources.get("GPU", 0),
            max_restarts=-1,  # `train_epoch` counts the retries of an episode
        )(EpisodeActor)
        for worker in range(self._sampler.num_workers):
            place = _bundle(self._group, worker)
            threads = self._cluster.threads_per_episode
            # Small arguments alone: Ray keeps large ones in its object store, and cannot restart the actor
            # once they are lost (ray-project/ray issue 53727).
            self._actors.append(actor.options(**place).remote(trainer_factory, self._sampler, threads))
        retries, waited = self._cluster.episode_retries, self._cluster.start_timeout_seconds
        # The first call waits for the process to start and import torch, so it has a limit of its own;
        # without it that time would count against the first epoch.
        pings = [actor.ping.options(max_task_retries=retries).remote() for actor in self._actors]
        if missing := _missing(pings, waited):
            raise UserError(
                f"workers {missing} of {len(pings)} did not start within cluster.start_timeout_seconds "
                f"{waited:g}: {self._what_ray_has()}: free or add resources, lower sampler.k, or wait longer"
            )
        for worker, ping in enumerate(pings):
            self._check_built(worker, ping)

    def _check_built(self, worker: int, ping: ray.ObjectRef) -> None:
        try:
            ray.get(ping)
        except RayError as error:
            cause = getattr(error, "cause", None)  # RayTaskError alone has the exception of the worker
            if isinstance(cause, UserError):
                raise cause from error
            reason = crash_report(self._actors[worker], error) if isinstance(error, RayActorError) else error
            raise EpisodeError(f"worker {worker} of {len(self._actors)} cannot be built: {reason}") from error

    def _what_ray_has(self) -> str:
        total, free = ray.cluster_resources(), ray.available_resources()
        has = ", ".join(
            f"{total.get(kind, 0):g} {kind} of which {free.get(kind, 0):g} free" for kind in ("CPU", "GPU")
        )
        return f"each asks {describe_resources(self._resources)}; Ray has {has}"

    def _renew(self, reports: Mapping[int, list[EpisodeReport]]) -> None:
        """Restart the processes of failed episodes: a CUDA error persists in its process, and so may memory in use."""
        for worker, of_worker in reports.items():
            if any(report.status in ("exception", "out_of_memory") for report in of_worker):
                ray.kill(self._actors[worker], no_restart=False)
                self._ended.add(worker)

    def _died(self, worker: int, tasks: Sequence[EpisodeTask], error: RayActorError) -> list[EpisodeReport]:
        """Return the reports of episodes whose worker died each time, with the crash report of the last death."""
        crash = crash_report(self._actors[worker], error)
        text = f"the worker died, after cluster.episode_retries {self._cluster.episode_retries} too: {crash}"
        return [dataclasses.replace(failed_report(task, self._sampler), traceback=text) for task in tasks]


def _with_retries(reports: list[EpisodeReport], retries: int) -> list[EpisodeReport]:
    """Return a worker's reports, the retries of its call counted once."""
    return [dataclasses.replace(reports[0], retries=retries), *reports[1:]] if retries else reports


def _ready(ref: ray.ObjectRef, timeout_seconds: float = 0.0) -> bool:
    ready, _ = ray.wait([ref], timeout=timeout_seconds)
    return bool(ready)


def _death(report: ray.ObjectRef) -> RayActorError | None:
    try:
        ray.get(report)
    except RayActorError as error:
        return error
    return None


def _missing(refs: list[ray.ObjectRef], timeout_seconds: float) -> list[int]:
    _, pending = ray.wait(refs, num_returns=len(refs), timeout=timeout_seconds)
    return [worker for worker, ref in enumerate(refs) if ref in pending]


def _bundle(group: PlacementGroup | None, worker: int) -> dict[str, PlacementGroupSchedulingStrategy]:
    """Return the option that puts an actor into its bundle; none inside a trial, whose group Ray takes by itself."""
    if group is None:
        return {}
    return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=worker)}
