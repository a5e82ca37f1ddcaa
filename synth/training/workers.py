"""The processes that train one network together: plain torch.distributed, whoever started them.

In one process nothing of it is used. `torchrun` and Ray Train each start the processes in their own way; what
a process does then is the same.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rlcas.errors import UserError

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Workers:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> Workers:
        """Return this process's place in the default process group; alone where there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(rank=dist.get_rank(), size=dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Return whether this process is the one that writes files and shows progress."""
        return self.rank == 0

    def check_divides(self, batch_size: int, setting: str) -> None:
        """Check that a global batch splits evenly, so that the mean of the shares' losses is the batch's.

        Raises:
            UserError: it does not.
        """
        if batch_size % self.size:
            raise UserError(
                f"{setting} {batch_size} cannot be shared by {self.size} workers: make it a multiple of {self.size}"
            )

    def share(self, batch: Tensor) -> Tensor:
        """Return this worker's rows of a global batch [N, ...], [N / size, ...]."""
        return batch.chunk(self.size)[self.rank]

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return `module`, its gradients averaged over the workers."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module)

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return scalars averaged over the workers, so that all of them see the same."""
        if self.size == 1:
            return values
        stacked = torch.stack(list(values.values()))
        dist.all_reduce(stacked)
        return dict(zip(values, stacked / self.size, strict=True))

    def first(self, action: Callable[[], Value]) -> Value:
        """Return what `action` gives in the first worker, in every worker; all wait for it.

        Raises:
            UserError: `action` raised it in the first.
        """
        if self.size == 1:
            return action()
        told: list[tuple[Value | None, UserError | None]] = [(None, None)]
        if self.leads:
            try:
                told = [(action(), None)]
            except UserError as error:
                told = [(None, error)]
        dist.broadcast_object_list(told)
        value, fault = told[0]
        if fault is not None:
            try:
                raise fault
            finally:
                del told, fault  # a fault that its own frame holds keeps the process group alive
        return value  # type: ignore[return-value]

    def wait(self) -> None:
        """Wait until all workers are here."""
        if self.size > 1:
            dist.barrier()

    def gather(self, rows: Tensor, total: int) -> Tensor:
        """Return [total, ...] from every worker's block of rows, in the order of their ranks."""
        if self.size == 1:
            return rows
        longest = -(-total // self.size)
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        blocks = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(blocks, padded)
        sizes = [len(span) for span in torch.arange(total).tensor_split(self.size)]
        return torch.cat([block[:size] for block, size in zip(blocks, sizes, strict=True)])


ALONE = Workers()


def join(backend: str, **how: Any) -> None:
    """Join a process group, as `init_process_group` does, so that leaving it ends its threads.

    DistributedDataParallel imports torch._dynamo, which keeps every group that is there by then, and with
    it gloo's threads, which would outlive the interpreter.
    """
    importlib.import_module("torch._dynamo")
    dist.init_process_group(backend, **how)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[Workers]:
    """Join the processes that torchrun started, each on a GPU of its own if on any; alone where it did not."""
    if not dist.is_torchelastic_launched():
        yield ALONE
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    join("nccl" if on_gpu else "gloo")
    try:
        yield Workers.joined()
    finally:
        dist.destroy_process_group()
