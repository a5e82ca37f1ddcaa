"""Sampling a pool on Ray Data: a row is a micro-batch, so that even few shards are spread over many workers.

Workers only sample, by `synth.generate.sample_micro_batch`; the driver writes the pool. So a worker needs no folder
but the synthesiser's, and a retry, which returns the same bytes, finds nothing half written.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import ray.data
import torch
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.annotations import RayDeprecationWarning

from cluster.runtime.connection import ensure_ray, quiet_ray
from cluster.runtime.gpus import use_assigned_gpus
from cluster.runtime.node_folder import NodeFolder
from cluster.runtime.resources import sampler_resources
from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.types import Uint8
from synth.generate import MicroBatch, open_sampler, sample_micro_batch
from synth.generators import ImageSampler, StartImages

Sampled = TypeVar("Sampled")


class SamplingError(RuntimeError):
    """The workers did not sample all micro-batches; the text has Ray's own."""


class SamplingWorkers:
    """Samples micro-batches on `cluster.sampling_workers` actors (a `synth.generate.SampleAll`).

    Args:
        synth_folder: the trained generator, an absolute path; nodes that do not reach it copy it.
        config: the run's settings.
        start: the real images to start from; None: noise alone.
    """

    def __init__(self, synth_folder: Path, config: RunConfig, start: StartImages | None = None) -> None:
        self._synth_folder, self._config, self._start = synth_folder, config, start

    def __call__(self, wanted: Sequence[MicroBatch]) -> Iterator[tuple[MicroBatch, Uint8]]:
        """Yield the micro-batches with their images, as they are done.

        Raises:
            UserError: the workers do not fit into Ray or do not start, one does not answer in time, or the
                synthesiser cannot be loaded.
            SamplingError: a worker died more often than a micro-batch is sampled again.
        """
        if not wanted:
            return
        cluster = self._config.cluster
        try:
            for row in _within(cluster.sampling_timeout_seconds, self._dataset(wanted).iter_rows()):
                if row["fault"]:
                    raise UserError(row["fault"])
                yield MicroBatch(*row["micro_batch"].tolist()), row["images"]
        except GetTimeoutError as error:
            raise UserError(
                f"cluster.sampling_workers {cluster.sampling_workers} did not start within "
                f"cluster.start_timeout_seconds {cluster.start_timeout_seconds:g}; Ray has "
                f"{ray.cluster_resources()}, and {ray.available_resources()} of it is free: free or add resources, "
                "ask for fewer workers, or wait longer"
            ) from error
        except RayActorError as error:
            raise SamplingError(
                f"a sampling worker died again after cluster.sampling_retries {cluster.sampling_retries}: {error}"
            ) from error

    def _dataset(self, wanted: Sequence[MicroBatch]) -> ray.data.Dataset:
        cluster = self._config.cluster
        ensure_ray(cluster.sampling_workers, cluster.worker_niceness)
        quiet_ray()
        # No GPUs on device cpu: `SamplingWorker` takes a GPU where Ray has assigned one.
        total = ray.cluster_resources() | ({"GPU": 0.0} if self._config.device == "cpu" else {})
        resources = sampler_resources(cluster, self._config.synth.generation.threads, total)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        # By default (-1) Ray Data 2.60 does not wait for its actors; so it raises GetTimeoutError.
        context.wait_for_min_actors_s = int(cluster.start_timeout_seconds)
        # A block for each micro-batch: a block is what Ray Data hands to a worker.
        rows = ray.data.from_items(
            [{"micro_batch": np.array(batch)} for batch in wanted], override_num_blocks=len(wanted)
        )
        with warnings.catch_warnings():  # Ray has no newer name for max_task_retries yet
            warnings.simplefilter("ignore", RayDeprecationWarning)
            return rows.map_batches(
                SamplingWorker,
                fn_constructor_args=(
                    NodeFolder.of(self._synth_folder, cluster.cache),
                    self._config,
                    # In the object store the images are there once a node, and its workers share them.
                    ray.put(self._start),
                ),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(
                    size=min(cluster.sampling_workers, len(wanted)), max_tasks_in_flight_per_actor=2
                ),
                num_cpus=resources["CPU"],
                num_gpus=resources["GPU"],
                scheduling_strategy={"spread": "SPREAD", "pack": "DEFAULT"}[cluster.placement],
                max_task_retries=cluster.sampling_retries,
            )


class SamplingWorker:
    """An actor with one sampler; the result of a call depends on its row alone."""

    def __init__(self, synth_folder: NodeFolder, config: RunConfig, start: ray.ObjectRef) -> None:
        use_assigned_gpus()
        self._start: StartImages | None = ray.get(start)
        self._device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
        self._synth_folder, self._config = synth_folder, config

    # Not in the constructor, where Ray would report a UserError as the actor's death.
    @functools.cached_property
    def _sampler(self) -> ImageSampler:
        return open_sampler(self._synth_folder.here(), self._config, self._device)

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return the row's micro-batch with its images, or with a UserError's text, which Ray would retry in vain."""
        (numbers,) = rows["micro_batch"]
        try:
            batch = MicroBatch(*numbers.tolist())
            images_NCHW = sample_micro_batch(self._sampler, batch, self._config, self._device, self._start)
        except UserError as error:
            return {
                "micro_batch": [numbers],
                "images": [np.empty((0, 0, 0, 0), np.uint8)],
                "fault": [str(error)],
            }
        return {"micro_batch": [numbers], "images": images_NCHW[None], "fault": [""]}


def _within(timeout_seconds: float, rows: Iterable[Sampled]) -> Iterator[Sampled]:
    """Yield the rows; without this Ray Data would wait for ever for a worker that hangs.

    Raises:
        UserError: the next row takes longer than that.
    """
    # maxsize=1: the thread must not collect images in memory faster than the pool is written.
    arrived: queue.Queue[tuple[list[Sampled], BaseException | None]] = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def pull() -> None:
        try:
            for row in rows:
                arrived.put(([row], None))
                if stopped.is_set():
                    return
            arrived.put(([], None))
        except BaseException as error:
            arrived.put(([], error))

    # daemon: a thread that hangs in Ray must not keep the process from ending.
    threading.Thread(target=pull, daemon=True).start()
    try:
        while True:
            some, error = arrived.get(timeout=timeout_seconds)
            if error is not None:
                raise error
            if not some:
                return
            yield from some
    except queue.Empty:
        raise UserError(
            f"no sampling worker answered within cluster.sampling_timeout_seconds {timeout_seconds:g}: raise it, "
            "or look for what hangs"
        ) from None
    finally:
        stopped.set()
        with contextlib.suppress(queue.Empty):
            arrived.get_nowait()  # else the thread may wait for room in the queue for ever
