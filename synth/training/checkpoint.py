"""Checkpoints of a network in training: weights, averages, optimiser and number of steps in one safetensors file.

Random draws and learning rates are functions of the step's number and the run's seed, so the number of steps done
stands for the state of random generators, scheduler and sampler.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rlcas.errors import UserError, first_line
from rlcas.storage.atomic import replacing
from rlcas.storage.remote import publish
from synth.training.ema import Ema


def save_checkpoint(
    path: Path,
    module: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    *,
    steps_done: int,
    figures: Mapping[str, float],
) -> None:
    """Replace the checkpoint by the state after `steps_done` steps, atomically, and publish it to remote storage.

    Args:
        path: the checkpoint's file.
        module: the network.
        ema: the moving averages of its weights.
        optimizer: its optimiser.
        steps_done: optimiser steps so far.
        figures: those of the last step.
    """
    # safetensors refuses tensors that are not contiguous, such as channels-last weights.
    tensors = {name: tensor.contiguous() for name, tensor in _tensors(module, ema, optimizer).items()}
    progress = json.dumps({"steps_done": steps_done, "figures": dict(figures)})
    with replacing(path) as temporary:
        # In one file, so that weights and step cannot disagree; safetensors' metadata are text only, hence JSON.
        save_file(tensors, temporary, metadata={"progress": progress})
    publish(path)


def load_checkpoint(
    path: Path, module: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, float]]:
    """Restore a checkpoint into network, averages and optimiser; return the steps done and the last figures.

    Args:
        path: the checkpoint's file.
        module: the network.
        ema: the moving averages of its weights.
        optimizer: its optimiser, before its first step.

    Raises:
        UserError: the file is truncated, altered, or of other settings.
    """
    _create_state(optimizer)
    tensors = _tensors(module, ema, optimizer)
    try:
        with safe_open(path, framework="pt") as stored:
            progress = json.loads(stored.metadata()["progress"])
            if set(stored.keys()) != set(tensors):
                raise ValueError("it holds other tensors")
            with torch.no_grad():
                for name, tensor in tensors.items():
                    # In place: device, memory format, and the parameters that DDP and optimiser hold remain.
                    tensor.copy_(stored.get_tensor(name))
            return int(progress["steps_done"]), progress["figures"]
    # All that a damaged file raises: TypeError without metadata, RuntimeError for a tensor of another shape.
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(
            f"checkpoint {path} is truncated, altered or of other settings ({first_line(error)}): delete it, and "
            "this part is trained again from its start"
        ) from error


def _tensors(module: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return every tensor of the state by name; the tensors themselves, not copies."""
    tensors = {f"weights.{name}": parameter.detach() for name, parameter in module.named_parameters()}
    for decay, average in ema.averages.items():
        tensors |= {f"average.{decay:g}.{name}": tensor for name, tensor in average.items()}
    for name, parameter in module.named_parameters():
        for key, tensor in optimizer.state[parameter].items():
            tensors[f"optimizer.{key}.{name}"] = tensor
    return tensors


def _create_state(optimizer: torch.optim.Optimizer) -> None:
    """Take one step with zero gradients, so that a new optimiser has moments to copy the checkpoint into.

    Created by the optimiser itself, the moments have the memory format of their weights (channels last), which the
    fused AdamW kernel needs; the step's effect on the weights is overwritten by the checkpoint.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
