"""Training a run's generator: in this process, with the processes of torchrun, or on workers of Ray Train."""

from __future__ import annotations

from cluster.synthesis.local import train_here
from rlcas.errors import UserError
from rlcas.runs.context import RunContext
from rlcas.runs.stages import stage
from synth.layout import FIGURES_FILE
from synth.training.workers import Workers


def train_generator(context: RunContext) -> None:
    """Train the generator into the run's folder, unless it is trained; resume an interrupted training.

    In a torch.distributed group all of its processes call this.

    Raises:
        UserError: as the generator's training; or both torchrun and `cluster.synth_workers` start workers.
    """
    if (context.folder.synth / FIGURES_FILE).exists():
        return
    workers, synth_workers = Workers.joined(), context.config.cluster.synth_workers
    if workers.size > 1 and synth_workers > 1:
        raise UserError(
            f"cluster.synth_workers {synth_workers} starts workers, and so did torchrun: leave one out"
        )
    if not workers.leads:
        train_here(context)
        return
    with stage(context.folder, "Training the synthesiser", "synthesiser"):
        if synth_workers > 1:
            from cluster.synthesis.ray_train import train_on_workers  # Ray takes seconds to import

            train_on_workers(context)
        else:
            train_here(context)
