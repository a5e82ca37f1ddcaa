"""The exact state of a classifier and its optimiser as one flat array per dtype, and back.

Within a dtype the model's tensors come first, in the order of its `state_dict`, then the optimiser's. Under
`classifier.ema_decay` these are the averaged weights, and the trained ones come last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlcas.devices import as_tensor
from rlcas.errors import UserError

Arrays = Mapping[str, NDArray[np.generic]]

ZERO_STATE = {"AdamW": ("exp_avg", "exp_avg_sq"), "SGD": ("momentum_buffer",)}
"""State tensors of an optimiser for every parameter, in the parameter's shape; all zeros before the first step."""


def materialise(optimizer: torch.optim.Optimizer) -> None:
    """Create the state of a new optimiser as zeros, so that it has the same layout as a used one.

    torch creates the state only in the first step; a step from these zeros gives the same parameters.
    """
    names = ZERO_STATE[type(optimizer).__name__]
    for parameter in _parameters(optimizer):
        state = {name: torch.zeros_like(parameter) for name in names}
        # Fused AdamW, which `build_optimizer` makes, counts its steps on the parameter's device.
        if "exp_avg" in state:
            state["step"] = torch.zeros((), device=parameter.device)
        optimizer.state[parameter] = state


def take(
    model: nn.Module, optimizer: torch.optim.Optimizer, further: Sequence[Tensor] = ()
) -> dict[str, NDArray[np.generic]]:
    """Return a copy of all weights, buffers, optimiser state and further tensors: dtype name -> flat array."""
    # One concatenation a dtype on the device, so that a GPU copies few large blocks to the host.
    groups = _by_dtype([*_tensors(model, optimizer), *further])
    return {
        # reshape(-1) gives the logical order in any memory format, so that channels-last and contiguous
        # classifiers share snapshots. `cat` copies: later steps do not change one.
        name: torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).cpu().numpy()
        for name, tensors in groups.items()
    }


def mean(states: Sequence[Arrays]) -> dict[str, NDArray[np.generic]]:
    """Return the mean of equally laid out states; of whole numbers and truth values, such as step counts, the largest.

    The sum is in float64, in which the mean of equal float32 values is, to the bit, each of them.
    """
    return {
        name: _mean([state[name] for state in states])
        if np.issubdtype(first.dtype, np.floating)
        else np.maximum.reduce([state[name] for state in states])
        for name, first in states[0].items()
    }


def equal(first: Arrays, second: Arrays) -> bool:
    """Return whether two states have the same bits."""
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


def _mean(arrays: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    return np.mean(np.stack(arrays), axis=0, dtype=np.float64).astype(arrays[0].dtype)


def restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, arrays: Arrays, further: Sequence[Tensor] = ()
) -> None:
    """Copy `arrays` into the model's and the optimiser's own tensors, and the further ones.

    Args:
        model: the classifier.
        optimizer: of the classifier.
        arrays: what `take` returned.
        further: tensors that were taken with them.

    Raises:
        UserError: the arrays are of another model or optimiser.
    """
    groups = _by_dtype([*_tensors(model, optimizer), *further])
    expected = {name: sum(tensor.numel() for tensor in tensors) for name, tensors in groups.items()}
    if (found := {name: array.size for name, array in arrays.items()}) != expected:
        raise UserError(
            f"the saved state holds {found} but classifier and optimizer need {expected}: "
            "continue with the classifier settings that it was saved with"
        )
    with torch.no_grad():
        for name, tensors in groups.items():
            flat = as_tensor(arrays[name], tensors[0].device)
            for tensor, view in zip(tensors, _views(flat, tensors), strict=True):
                # In place: the optimiser holds these very parameters, and they keep their memory format.
                tensor.copy_(view)


def to_state_dict(arrays: Arrays, model: nn.Module) -> dict[str, Tensor]:
    """Return the model's part of `arrays` as a state dict of views; `model` may be on the meta device."""
    state = model.state_dict()
    names_by_dtype: dict[str, list[str]] = {}
    for name, tensor in state.items():
        names_by_dtype.setdefault(_dtype_name(tensor), []).append(name)
    views: dict[str, Tensor] = {}
    for dtype_name, names in names_by_dtype.items():
        flat = as_tensor(arrays[dtype_name], torch.device("cpu"))
        views.update(zip(names, _views(flat, [state[name] for name in names]), strict=True))
    return {name: views[name] for name in state}


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    # Buffers too: BatchNorm's statistics and a method's running estimates are part of the incumbent.
    yield from model.state_dict().values()
    for parameter in _parameters(optimizer):
        state = optimizer.state[parameter]
        # Sorted, because torch inserts the state of a new optimiser in another order than `materialise`.
        yield from (state[key] for key in sorted(state))


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _by_dtype(tensors: Iterable[Tensor]) -> dict[str, list[Tensor]]:
    groups: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(_dtype_name(tensor), []).append(tensor)
    return groups


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _views(flat: Tensor, like: list[Tensor]) -> Iterator[Tensor]:
    """Yield consecutive pieces of `flat` in the shapes of `like`."""
    start = 0
    for tensor in like:
        yield flat[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
