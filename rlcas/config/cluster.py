"""Settings of Ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from rlcas.config.values import Count, NonNegative, Positive, PositiveCount, Settings


class ClusterConfig(Settings):
    """Ray: where the episodes and the synthesiser run."""

    episode_runner: Literal["actors", "in_process"] = "actors"
    """actors: the K episodes of an epoch side by side, on Ray. in_process: one after another in the process that
    calls, to debug a trainer or save the memory of K processes; the same bits."""
    gpus_per_episode: NonNegative | None = None
    """GPUs of one episode. None: one each where there are K, 1/K on a single card, 0 without a GPU or on device cpu."""
    threads_per_episode: PositiveCount | None = None
    """Torch threads of one episode on a CPU; part of what makes the same bits. None: this machine's cores divided
    by K, 1 at least; the run's folder keeps the number."""
    placement: Literal["spread", "pack"] = "spread"
    """Where Ray places the K episodes of a run or trial, if it can. spread: on as many nodes as there are, so that none
    shares its disk and memory with more than it must, and a lost node costs one episode. pack: on as few, which leaves
    whole nodes to others, and the incumbent travels to fewer. The synthesiser's workers and those that fill the pool
    are placed in the same way; so are the members of a population (sampler.agents pbt)."""
    start_timeout_seconds: Positive = 300.0
    """Longest wait for Ray to reserve places for the K workers, and to start them, copies of the data to their nodes
    included."""
    cache: Path | None = None
    """Folder, on each node's own disk, for copies of data and pools that the node does not reach, and of what is
    fetched from addresses. None: the node's environment variable RLCAS_CACHE, else ~/.cache/rlcas."""
    epoch_timeout_seconds: Positive = 3600.0
    """Longest wait for the K episodes of one epoch."""
    checkpoint_epochs: PositiveCount = 1
    """Epochs from one checkpoint to the next; the last two are kept, each with the best classifier so far."""
    episode_retries: Count = 3
    """How often an episode, or the synthesiser's training, is run again after a worker died."""
    synth_workers: PositiveCount = 1
    """Processes that train the synthesiser together, a GPU each where there is one, started by Ray Train; 1 is
    this process. The batches are the same, and divided among them."""
    sampling_workers: PositiveCount = 1
    """Workers that fill the pool side by side, on Ray; 1 fills it in the process itself."""
    gpus_per_sampler: NonNegative | None = None
    """GPUs of one sampling worker. None: one each, or an even share where there are fewer; 0 on device cpu."""
    sampling_retries: Count = 3
    """How often a micro-batch is sampled again after its worker died."""
    sampling_timeout_seconds: Positive = 3600.0
    """Longest wait for the next micro-batch of the sampling workers."""

    def concrete(self, k: int, device: str = "auto") -> ClusterConfig:
        """Return the settings with what K and this machine decide: the threads, and no GPU on device cpu."""
        gpus = 0.0 if device == "cpu" and self.gpus_per_episode is None else self.gpus_per_episode
        threads = self.threads_per_episode or max(1, (os.cpu_count() or 1) // k)
        return self.model_copy(update={"threads_per_episode": threads, "gpus_per_episode": gpus})
