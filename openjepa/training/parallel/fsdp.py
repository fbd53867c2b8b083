"""Shard weights, gradients and optimizer state over ranks with FSDP2."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from openjepa.core.distributed import rank_and_size
from openjepa.nn.transformer import Block


def shard_method(method: Any, device: torch.device) -> Any:
    """The method on the device, each of its networks spread over all processes, in place; whole if there is only one.

    Gradients are averaged over processes as they are spread, after every micro-batch. Weights travel in fp32.
    """
    ranks = rank_and_size()[1]
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
