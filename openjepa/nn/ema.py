"""Exponential moving average (EMA) of a network's weights and running statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openjepa.core.distributed import local_shards


@torch.no_grad()
def update_ema(ema: nn.Module, source: nn.Module, momentum: float, step_taken: Tensor | None = None) -> None:
    """Update in place: ema ← momentum · ema + (1 - momentum) · source.

    Floating-point buffers, such as the running mean and variance of BatchNorm, are averaged like the weights that they
    were measured with; other buffers, such as its count of batches, are copied. Buffers that are not saved with the
    network (persistent=False) stay as they are: they are caches and tables.

    `step_taken` is a flag on the device: where it is False, because the optimizer skipped the step, nothing moves, even
    if the forward pass left NaN in the source's statistics. The host never waits for the flag.
    """
    averages, weights = local_shards(ema.parameters()), local_shards(source.parameters())
    if step_taken is None:
        torch._foreach_lerp_(averages, weights, 1.0 - momentum)  # pyright: ignore
    else:
        weight = torch.where(step_taken, 1.0 - momentum, 0.0)
        torch._foreach_lerp_(averages, weights, [weight] * len(averages))  # pyright: ignore
    for average, value in zip(saved_buffers(ema), saved_buffers(source), strict=True):
        update_buffer(average, value, momentum, step_taken)


def update_buffer(average: Tensor, value: Tensor, momentum: float, step_taken: Tensor | None) -> None:
    """Average a floating-point buffer in place, or copy any other; equal values stay, so infinite constants do too."""
    moved = average.lerp(value, 1.0 - momentum) if average.is_floating_point() else value
    moved = torch.where(average == value, average, moved)
    average.copy_(moved if step_taken is None else torch.where(step_taken, moved, average))


def saved_buffers(network: nn.Module) -> list[Tensor]:
    """Return the part that this process holds of each buffer that is saved with the network."""
    return local_shards(
        buffer
        for module in network.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    )
