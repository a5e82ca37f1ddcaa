"""Settings of Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rlcas.config.cores import available_cores
from rlcas.config.values import Count, Niceness, NonNegative, Positive, PositiveCount, Settings


class ClusterConfig(Settings):
    """Ray: where the episodes and the synthesiser run."""

    episode_runner: Literal["actors", "in_process"] = "actors"
    """actors: the K episodes of an epoch run in parallel on Ray. in_process: one after another in the calling process,
    to debug a trainer or to save the memory of K processes; the results are the same bits."""
    gpus_per_episode: NonNegative | None = None
    """GPUs of one episode. None: 1 if there are K GPUs, 1/K on a single one, 0 without a GPU or on device cpu."""
    threads_per_episode: PositiveCount | None = None
    """Torch threads of one episode on a CPU; another number changes the last bits. None: the cores that this process
    may use (`rlcas doctor` shows them) divided by K, at least 1; the run's folder records the number."""
    worker_niceness: Niceness = 0
    """How much nicer than the command its workers are, where it starts Ray itself: 0 shares the machine evenly with
    other work, 15 (Ray's own default) gives way to it. On a cluster that is the cluster's matter."""
    placement: Literal["spread", "pack"] = "spread"
    """On which nodes Ray places the K episodes of a run or trial, if it can. spread: on as many nodes as possible, so
    that few share a node's disk and memory and a lost node costs few episodes. pack: on as few nodes as possible, which
    leaves whole nodes free and sends the incumbent to fewer. The workers that train the synthesiser and fill the pool
    are placed in the same way."""
    start_timeout_seconds: Positive = 300.0
    """Longest wait for Ray to reserve resources for the K workers and to start them, including the copying of data to
    their nodes."""
    cache: Path | None = None
    """Folder on each node's own disk for copies of data and pools that are not on storage the node can read, and for
    downloads from addresses. None: the node's environment variable RLCAS_CACHE, else ~/.cache/rlcas."""
    epoch_timeout_seconds: Positive = 3600.0
    """Longest wait for the K episodes of one epoch."""
    checkpoint_epochs: PositiveCount = 1
    """Epochs between checkpoints; the last two are kept, each with the best classifier so far."""
    episode_retries: Count = 3
    """How often an episode, or the synthesiser's training, is retried after a worker died."""
    synth_workers: PositiveCount = 1
    """Processes that train the synthesiser together, started by Ray Train, each with a GPU if there is one; 1 trains
    in the calling process. The batches are the same, divided among the processes."""
    sampling_workers: PositiveCount = 1
    """Workers that fill the pool in parallel on Ray; 1 fills it in the calling process."""
    gpus_per_sampler: NonNegative | None = None
    """GPUs of one sampling worker. None: one each, or an even share if there are fewer; 0 on device cpu."""
    sampling_retries: Count = 3
    """How often a micro-batch is retried after its worker died."""
    sampling_timeout_seconds: Positive = 3600.0
    """Longest wait for the next micro-batch of the sampling workers."""

    def concrete(self, k: int, device: str = "auto") -> ClusterConfig:
        """Return the settings with the values that depend on K and this machine: threads, and no GPU on device cpu."""
        gpus = 0.0 if device == "cpu" and self.gpus_per_episode is None else self.gpus_per_episode
        # K episodes share the cores. The number is part of the bits, so that it is fixed once and recorded.
        threads = self.threads_per_episode or max(1, available_cores() // k)
        return self.model_copy(update={"threads_per_episode": threads, "gpus_per_episode": gpus})
