"""Devices, precision, and computations that give the same bits each time."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlcas.errors import UserError

Network = TypeVar("Network", bound=nn.Module)

_IMPORTED_IN = os.getpid()


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device of the setting `device`; `auto` is the GPU if torch finds one.

    Raises:
        UserError: `cuda` is set and torch finds no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' is not available: torch finds no GPU; set device to auto or cpu")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def autocast(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.autocast:
    """Return the autocast context of the setting `classifier.precision`.

    `auto` is bf16 only on a GPU that computes it natively: emulated, it is slower than fp32, on a CPU ten times.
    """
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = precision == "bf16" or (precision == "auto" and native)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def as_tensor(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """Return `array` on `device`; on a CPU the tensor shares the array's memory and must not be written to."""
    # Arrays out of Ray's object store and of mapped files are read-only, and torch has no read-only tensors.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def place(model: Network, device: torch.device) -> Network:
    """Return `model` on `device`, in channels-last format if that is safe: 1.2 times faster on a CPU.

    On a CPU the backward pass of a strided 1x1 convolution of fewer than 16 channels-last channels writes
    past oneDNN's workspace and corrupts the heap (https://github.com/uxlfoundation/oneDNN/issues/6035).
    """
    model = model.to(device)
    if device.type == "cpu" and any(_breaks_onednn(module) for module in model.modules()):
        return model
    for tensor in (*model.parameters(), *model.buffers()):
        # `model.to(memory_format=...)` asks the same of 5-D weights, such as a Conv3d's, which refuse it.
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return model


def _breaks_onednn(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels // module.groups < 16
    )


@contextlib.contextmanager
def same_bits(device: torch.device) -> Iterator[None]:
    """Make computations on `device` reproducible to the bit, and restore torch's global random state afterwards.

    Our CPU kernels are deterministic anyway, at a given number of threads.
    """
    on_gpu = device.type == "cuda"
    # By default torch saves the generators of all GPUs of the machine.
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        if on_gpu:
            with _deterministic_kernels():
                yield
        else:
            yield


@contextlib.contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch compute on `number` threads of the CPU, and restore the number of threads afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compute_on_one_thread_if_forked() -> None:
    """Let torch compute on one thread, with a warning, in a process that was forked from one with this module.

    A fork copies none of the threads of OpenMP, and the copy would wait for them forever.
    """
    if os.getpid() != _IMPORTED_IN and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        warnings.warn(
            "this process was forked, so torch computes on one thread here, as more could hang: start "
            'processes by "spawn", in Gymnasium by vector_kwargs={"context": "spawn"}',
            stacklevel=2,
        )


@contextlib.contextmanager
def _deterministic_kernels() -> Iterator[None]:
    # cuBLAS is deterministic only with a fixed workspace; it reads this when a process first multiplies matrices.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deterministic = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    # Deterministic mode fills uninitialised tensors with NaN, which costs time and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False  # it chooses kernels by their measured time, which varies
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark
