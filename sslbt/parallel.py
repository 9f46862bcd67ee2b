"""Several processes that train one network together, as torchrun starts them: which am I, what is my share?

Alone, every function here does nothing. Whatever is random is drawn for the whole batch by every process, which then
takes its share, so that the number of processes changes nothing but rounding.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from sslbt.errors import UserError

T = TypeVar("T", Tensor, np.ndarray)
V = TypeVar("V")


@contextmanager
def together() -> Iterator[None]:
    """Join the other processes that torchrun started: gloo between processors, nccl between GPUs."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 reports and writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def shared_batch(wanted: int, available: int) -> int:
    """How many slices a batch has: those wanted, or all there are, in equal shares.

    Raises:
        UserError: the processes can't share them equally.
    """
    if wanted % size() or available < size():
        raise UserError(
            f"batch={wanted}: {size()} processes can't share it; give a multiple of {size()}, and more data"
        )
    return min(wanted, available // size() * size())


def share(whole: T) -> T:
    """This process's rows of a batch that every process knows."""
    each = len(whole) // size()
    return whole[rank() * each : (rank() + 1) * each]


def gather(rows: Tensor) -> Tensor:
    """Every process's rows, in the order of the whole batch.

    Only this process's own rows pass a gradient on, times the number of processes: where a loss over all rows is
    computed by every process and gradients are averaged, the sum is the gradient of that loss.
    """
    if size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(size())]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[rank()] = rows * size() - rows.detach() * (size() - 1)
    return torch.cat(parts)


def mean(values: Tensor) -> Tensor:
    """Mean over all processes, without a gradient."""
    if size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / size()


def from_first(read: Callable[[], V]) -> V:
    """What process 0 reads or finds, known to all: others may lack the file, or round otherwise."""
    if size() == 1:
        return read()
    found: list = [read()] if rank() == 0 else [None]
    dist.broadcast_object_list(found)
    return found[0]


class Total(torch.autograd.Function):
    """Sum over all processes; its gradient too is the sum over all of them."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
