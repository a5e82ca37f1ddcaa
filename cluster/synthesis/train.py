"""Training a run's generator: in this process, with the processes of torchrun, or on workers of Ray Train."""

from __future__ import annotations

import torch

from cluster.synthesis.local import train_here
from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.runs.folder import RunFolder
from rlcas.runs.stages import stage
from rlcas.types import TrainingData
from synth.layout import FIGURES_FILE
from synth.training.workers import Workers


def train(folder: RunFolder, config: RunConfig, data: TrainingData, device: torch.device) -> None:
    """Train the generator into the run's folder, where it is not there yet; go on where it was interrupted.

    In a torch.distributed group all of its processes call this.

    Raises:
        UserError: as the generator's training; or both torchrun and `cluster.synth_workers` ask for workers.
    """
    if (folder.synth / FIGURES_FILE).exists():
        return
    workers = Workers.joined()
    if workers.size > 1 and config.cluster.synth_workers > 1:
        raise UserError(
            f"cluster.synth_workers {config.cluster.synth_workers} starts workers, and so did torchrun: leave one out"
        )
    if not workers.leads:
        train_here(folder, config, data, device)
        return
    with stage(folder, "Training the synthesiser", "synthesiser"):
        if config.cluster.synth_workers > 1:
            from cluster.synthesis.ray_train import train_on_workers  # Ray takes seconds to import

            train_on_workers(folder, config, device)
        else:
            train_here(folder, config, data, device)
