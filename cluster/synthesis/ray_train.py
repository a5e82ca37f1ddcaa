"""Training the synthesiser on several workers of Ray Train, which form a torch.distributed group."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import FailureConfig, ScalingConfig
from ray.train import RunConfig as RayRunConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from cluster.runtime.connection import ensure_ray
from cluster.runtime.gloo_interface import RayNetworkConfig
from cluster.runtime.node_folder import check_reached, for_ray
from cluster.synthesis.local import train_here
from rlcas import settings
from rlcas.config.cores import available_cores
from rlcas.console import progress
from rlcas.data.prepared import open_prepared
from rlcas.devices import choose_device
from rlcas.errors import UserError
from rlcas.runs.context import RunContext
from rlcas.runs.epoch_log import read_lines
from rlcas.runs.folder import RunFolder
from rlcas.storage.atomic import fix_for

SCRATCH_FOLDER = "ray"
LOOK_EVERY_SECONDS = 1.0


def train_on_workers(context: RunContext) -> None:
    """Train the run's generator on `cluster.synth_workers` workers, which resume from its checkpoints.

    If a worker dies, all are started again, up to `cluster.episode_retries` times. On several machines the run's folder
    must be on storage that they share.

    Raises:
        UserError: Ray has too few cores or GPUs, or a worker raised a UserError.
        RuntimeError: the training failed; the text has the worker's own traceback.
    """
    folder, cluster = context.folder, context.config.cluster
    num_workers, on_gpu = cluster.synth_workers, context.device.type == "cuda"
    ensure_ray(num_workers, cluster.worker_niceness)
    _check_fits(num_workers, "GPU" if on_gpu else "CPU")
    scratch = folder.path / SCRATCH_FOLDER  # for Ray's own state alone: the checkpoints are in the run's folder
    trainer = TorchTrainer(
        _train,
        train_loop_config={"folder": str(for_ray(folder.path))},
        torch_config=RayNetworkConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=num_workers, use_gpu=on_gpu, placement_strategy=cluster.placement.upper()
        ),
        run_config=RayRunConfig(
            name="synthesiser",
            storage_path=str(for_ray(scratch)),
            failure_config=FailureConfig(max_failures=cluster.episode_retries),
        ),
    )
    try:
        with _shown(folder):
            fault = trainer.fit().return_value
    except TrainingFailedError as error:
        raise RuntimeError(f"the synthesiser's workers failed:\n{error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if fault is not None:
        raise UserError(fault)


def _train(loop: dict[str, Any]) -> str | None:
    """Train as one worker; return the text of a UserError, which is not raised here: Ray would retry it in vain."""
    folder = RunFolder(Path(loop["folder"]))
    try:
        check_reached(folder.path, settings.CONFIG_FILE)
        config = settings.load(folder.path)
        device = choose_device(config.device)
        if device.type == "cpu":
            # Workers may share this machine, and more threads than cores make training several times slower.
            torch.set_num_threads(max(1, available_cores() // config.cluster.synth_workers))
        train_here(RunContext(folder, config, open_prepared(folder.prepared), device), progress=False)
    except UserError as error:
        return str(error)
    except OSError as error:  # a disk that is full or read-only fails each retry too
        if (fix := fix_for(error)) is None:
            raise
        return f"{error}: {fix}"
    return None


def _check_fits(num_workers: int, resource: str) -> None:
    """Refuse more workers than Ray has resources for: it would wait for them without end."""
    total = ray.cluster_resources().get(resource, 0.0)
    if num_workers > total:
        raise UserError(
            f"cluster.synth_workers {num_workers} needs {num_workers} {resource}s, but Ray has {total:g}: lower it"
        )


@contextlib.contextmanager
def _shown(folder: RunFolder) -> Iterator[None]:
    """Show the workers' progress, as their log records it."""
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(folder.synthesis_log, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _follow(log: Path, ended: threading.Event) -> None:
    """Advance a bar for each part by the log's lines, until `ended` is set."""
    with contextlib.ExitStack() as stack:
        bars: dict[str, Any] = {}
        while True:
            is_last = ended.wait(LOOK_EVERY_SECONDS)
            for line in {line["part"]: line for line in read_lines(log)}.values():
                part = line["part"]
                if part not in bars:
                    stack.close()
                    bars[part] = stack.enter_context(progress(part, line["steps"]))
                # max: workers that start again log from their checkpoint on, which the bar has passed.
                bars[part].advance(max(0, line["step"] - bars[part].done))
            if is_last:  # read once more after the end: the bars reach 100 %
                return
