"""Shard weights, gradients and optimizer state over ranks with FSDP2."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from openjepa.core.distributed import rank_and_size
from openjepa.nn.transformer import Block


def shard_method(method: Any, device: torch.device) -> Any:
    """Move the method to the device and, with several ranks, shard each of its networks over them, in place.

    Gradients are averaged over ranks when they are sharded, after every micro-batch. Weights are gathered in fp32.
    """
    ranks = rank_and_size()[1]
    if ranks == 1:
        return method.to(device)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # The warning asks users not to write into the view; our code never does.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
    mesh = init_device_mesh(device.type, (ranks,))
    # Shard the networks, not the method: `targets` and `forward` call them directly and never method.__call__.
    for network in method.children():
        for module in network.modules():
            if isinstance(module, Block):
                fully_shard(module, mesh=mesh)
        fully_shard(network, mesh=mesh, reshard_after_forward=True)
    return method
