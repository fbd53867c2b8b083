"""Collectives that also work in a single process without a process group."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from openjepa.core.cpus import available_cores


def rank_and_size() -> tuple[int, int]:
    """Return this process's rank and the world size; (0, 1) without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_main() -> bool:
    """Return whether this process is rank 0."""
    return rank_and_size()[0] == 0


def local_rank() -> int:
    """Return this process's rank on its machine (torchrun's LOCAL_RANK), which selects its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def all_reduce_sum(value: Tensor) -> Tensor:
    """Sum a tensor over all ranks, in place and without gradient."""
    if rank_and_size()[1] > 1:
        dist.all_reduce(value)
    return value


def gather_ranks(x: Tensor) -> Tensor:
    """Concatenate the rows that every rank holds, in the order of ranks, with gradient; x itself in one process.

    For losses that compare the samples of the whole batch, such as VICReg's. Every rank must call this with a tensor of
    the same shape and compute the same loss on the result. The gradient is then exactly that of one process with the
    whole batch: the backward pass gives each rank's rows the sum of the R equal losses' gradients, R times the gradient
    of one loss, and DDP and FSDP divide the sum over ranks by R. Terms that are a mean over a rank's own rows can be
    added to it as usual.
    """
    return GatherRanks.apply(x) if rank_and_size()[1] > 1 else x  # pyright: ignore


class GatherRanks(torch.autograd.Function):
    """all_gather whose backward pass sums the gradients of all ranks for this rank's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rank, size = rank_and_size()
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(size)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return all_reduce_sum(grad.contiguous().clone()).chunk(rank_and_size()[1])[ctx.rank]


def barrier() -> None:
    """Wait until every rank has reached this call."""
    if rank_and_size()[1] > 1:
        dist.barrier()


def all_reduce_max(value: Tensor) -> Tensor:
    """Take the maximum of a tensor over all ranks, in place."""
    if rank_and_size()[1] > 1:
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def local_size() -> int:
    """Return the number of processes on this machine (torchrun's LOCAL_WORLD_SIZE)."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def process_cores() -> float:
    """Return the cores for this process alone: a fraction if there are more processes than cores.

    Processes on one machine share its cores; those that are tasks of Slurm have `--cpus-per-task` cores each.
    """
    cores, per_task = available_cores(), os.environ.get("SLURM_CPUS_PER_TASK", "")
    if per_task.isdigit() and int(per_task) and os.environ.get("SLURM_NTASKS") == os.environ.get("WORLD_SIZE", "1"):
        return float(min(cores, int(per_task)))
    return cores / local_size()


def is_sharded(tensor: Any) -> bool:
    """Return whether a tensor is a DTensor, whose parts are held by several processes.

    Checks for a method instead of the type, because importing DTensor takes half a second.
    """
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Any) -> Tensor:
    """Gather a sharded tensor from all ranks; every rank must call this."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def local_shards(tensors: Iterable[Any]) -> list[Tensor]:
    """Return the part of each tensor that this process holds; an unsharded tensor is returned whole."""
    return [tensor.to_local() if is_sharded(tensor) else tensor for tensor in tensors]


def distribute_like(value: Tensor, tensor: Any) -> Tensor:
    """Move `value`, which every rank holds in full, to the device of `tensor` and shard it the same way."""
    moved = value.to(tensor.device)
    if not is_sharded(tensor):
        return moved
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(moved, tensor.device_mesh, tensor.placements, src_data_rank=None)
