"""Collectives that work in one process without a process group, and in many."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import Tensor


def rank_and_size() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_main() -> bool:
    return rank_and_size()[0] == 0


def local_rank() -> int:
    """Which of this machine's devices is ours, as torchrun says."""
    return int(os.environ.get("LOCAL_RANK", 0))


def all_reduce_sum(value: Tensor) -> Tensor:
    """The sum over ranks, in place; no gradient."""
    if rank_and_size()[1] > 1:
        dist.all_reduce(value)
    return value


def barrier() -> None:
    if rank_and_size()[1] > 1:
        dist.barrier()


def all_reduce_max(value: Tensor) -> Tensor:
    """The largest over ranks, in place."""
    if rank_and_size()[1] > 1:
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def local_size() -> int:
    """How many processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def is_sharded(tensor: Any) -> bool:
    """Whether other processes hold parts of it. The type itself, DTensor, takes half a second to import."""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Any) -> Tensor:
    """The tensor put together from all processes, which all must ask for it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def local_shards(tensors: Iterable[Any]) -> list[Tensor]:
    """What this process holds of each."""
    return [tensor.to_local() if is_sharded(tensor) else tensor for tensor in tensors]


def distribute_like(value: Tensor, tensor: Any) -> Tensor:
    """A whole tensor, which every process has, on the device of another and spread as that one is."""
    placed = value.to(tensor.device)
    if not is_sharded(tensor):
        return placed
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(placed, tensor.device_mesh, tensor.placements, src_data_rank=None)
