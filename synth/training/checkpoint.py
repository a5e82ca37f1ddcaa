"""A network in training on disk: weights, averages, optimiser and position in one safetensors file.

Draws and learning rates are functions of the step's number and the run's seed, so that the number of steps done
is all that there is of generators, scheduler and sampler.
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
    """Write the state after `steps_done` steps in the place of the checkpoint before, whole or not at all; publish."""
    tensors = {name: tensor.contiguous() for name, tensor in _tensors(module, ema, optimizer).items()}
    progress = json.dumps({"steps_done": steps_done, "figures": dict(figures)})
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"progress": progress})
    publish(path)


def load_checkpoint(
    path: Path, module: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, float]]:
    """Put a checkpoint's state in place; return the steps done, and the figures last told.

    Raises:
        UserError: the file is truncated, altered, or of other settings.
    """
    _start(optimizer)
    places = _tensors(module, ema, optimizer)
    try:
        with safe_open(path, framework="pt") as stored:
            progress = json.loads(stored.metadata()["progress"])
            if set(stored.keys()) != set(places):
                raise ValueError("it holds other tensors")
            with torch.no_grad():
                for name, place in places.items():
                    place.copy_(stored.get_tensor(name))
            return int(progress["steps_done"]), progress["figures"]
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(
            f"checkpoint {path} is truncated, altered or of other settings ({first_line(error)}): delete it, and "
            "this part is trained again from its start"
        ) from error


def _tensors(module: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return every tensor of the state by name; they are the very tensors, not copies."""
    tensors = {f"weights.{name}": parameter.detach() for name, parameter in module.named_parameters()}
    for decay, average in ema.averages.items():
        tensors |= {f"average.{decay:g}.{name}": tensor for name, tensor in average.items()}
    for name, parameter in module.named_parameters():
        for key, tensor in optimizer.state[parameter].items():
            tensors[f"optimizer.{key}.{name}"] = tensor
    return tensors


def _start(optimizer: torch.optim.Optimizer) -> None:
    """Give a fresh optimiser the state of one step, which the checkpoint's then overwrites.

    Its moments thus have the memory format of their weights, on which a fused step counts.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
