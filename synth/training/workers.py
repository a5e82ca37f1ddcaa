"""The processes that train one network together, by plain torch.distributed.

They are started by `torchrun` or by Ray Train and then do the same. A single process needs no process group.
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
        """Return this process's place in the default process group; rank 0 of 1 if none was initialised."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(rank=dist.get_rank(), size=dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Return whether this process is the one that writes files and shows progress."""
        return self.rank == 0

    def check_divides(self, batch_size: int, setting: str) -> None:
        """Check that a global batch splits evenly, so that the mean of the workers' losses is the batch's loss.

        Raises:
            UserError: it does not.
        """
        if batch_size % self.size:
            raise UserError(
                f"{setting} {batch_size} cannot be shared by {self.size} workers: make it a multiple of {self.size}"
            )

    def share(self, batch: Tensor) -> Tensor:
        """Return this worker's rows of a global batch [N, ...], [N / size, ...]."""
        # `check_divides` has made sure that chunks are equal; chunk would give unequal ones without an error.
        return batch.chunk(self.size)[self.rank]

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return `module` in DistributedDataParallel, which averages its gradients over the workers."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module)

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return scalars averaged over the workers, equal in all of them."""
        if self.size == 1:
            return values
        stacked = torch.stack(list(values.values()))
        # One reduction for all figures; the sum is divided here, because gloo has no operation for a mean.
        dist.all_reduce(stacked)
        return dict(zip(values, stacked / self.size, strict=True))

    def run_on_first(self, action: Callable[[], Value]) -> Value:
        """Call `action` in the first worker and return its result in every worker; all wait for it.

        Raises:
            UserError: `action` raised it in the first worker.
        """
        if self.size == 1:
            return action()
        outcome: list[tuple[Value | None, UserError | None]] = [(None, None)]
        if self.leads:
            try:
                outcome = [(action(), None)]
            except UserError as user_error:
                outcome = [(None, user_error)]
        # The error too is sent: an exception in the first worker alone would leave the others waiting here.
        # This is pickle, but only between processes of one training.
        dist.broadcast_object_list(outcome)
        value, error = outcome[0]
        if error is not None:
            try:
                raise error
            finally:
                # An exception and the frame that holds it form a cycle, which keeps the process group alive.
                del outcome, error
        return value  # type: ignore[return-value]

    def wait(self) -> None:
        """Wait until all workers have called this."""
        if self.size > 1:
            dist.barrier()

    def gather(self, rows: Tensor, total: int) -> Tensor:
        """Return [total, ...] from every worker's block of rows, in the order of their ranks.

        The blocks are those of `tensor_split`; they are padded to one length, as all_gather takes equal shapes only.
        """
        if self.size == 1:
            return rows
        longest = -(-total // self.size)
        # The first total % size blocks of tensor_split have one row more than the others.
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        blocks = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(blocks, padded)
        sizes = [len(span) for span in torch.arange(total).tensor_split(self.size)]
        return torch.cat([block[:size] for block, size in zip(blocks, sizes, strict=True)])


ALONE = Workers()


def join(backend: str, **options: Any) -> None:
    """Join a process group by `init_process_group`, so that destroying the group ends its threads.

    DistributedDataParallel imports torch._dynamo, which keeps every group that exists at its import. Gloo's threads
    would then outlive `destroy_process_group`, and one that asks for the interpreter's lock at exit aborts the
    process. So the module is imported before the group exists.
    """
    importlib.import_module("torch._dynamo")
    dist.init_process_group(backend, **options)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[Workers]:
    """Join the processes that torchrun started, on a GPU each for device `cuda`; yield ALONE without torchrun."""
    if not dist.is_torchelastic_launched():
        yield ALONE
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        # Before the group exists: NCCL takes the process's current GPU, which would be the first for all.
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    join("nccl" if on_gpu else "gloo")
    try:
        yield Workers.joined()
    finally:
        dist.destroy_process_group()
