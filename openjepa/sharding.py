"""Weights, gradients, moments and the averaged target spread over processes (FSDP2), for models that outgrow one device.

Of every tensor a process keeps its rows. A transformer block is put together when it is needed and let go afterwards.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from openjepa import distributed
from openjepa.nn.transformer import Block


def sharded(method: Any, device: torch.device) -> Any:
    """The method on the device, each of its networks spread over all processes, in place; whole if there is only one.

    Gradients are averaged over processes as they are spread, after every micro-batch. Weights travel in fp32.
    """
    ranks = distributed.world()[1]
    if ranks == 1:
        return method.to(device)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # which says not to write into it: nobody does
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
    mesh = init_device_mesh(device.type, (ranks,))
    for network in method.children():  # apart: targets and forward are two calls, and neither goes through the method
        for module in network.modules():
            if isinstance(module, Block):
                fully_shard(module, mesh=mesh)
        fully_shard(network, mesh=mesh, reshard_after_forward=True)
    return method


def spread(tensor: Any) -> bool:
    """Whether other processes hold parts of it. The type itself, DTensor, takes half a second to import."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Any) -> Tensor:
    """The tensor put together from all processes, which all must ask for it."""
    return tensor.full_tensor() if spread(tensor) else tensor


def parts(tensors: Iterable[Any]) -> list[Tensor]:
    """What this process holds of each."""
    return [tensor.to_local() if spread(tensor) else tensor for tensor in tensors]


def like(value: Tensor, tensor: Any) -> Tensor:
    """A whole tensor, which every process has, on the device of another and spread as that one is."""
    placed = value.to(tensor.device)
    if not spread(tensor):
        return placed
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(placed, tensor.device_mesh, tensor.placements, src_data_rank=None)
