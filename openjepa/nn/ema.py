"""Exponential moving average (EMA) of a network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openjepa.core.distributed import local_shards


@torch.no_grad()
def update_ema(ema: nn.Module, source: nn.Module, momentum: float, step_taken: Tensor | None = None) -> None:
    """Update in place: ema ← momentum · ema + (1 - momentum) · source.

    Covers parameters, not buffers: networks without running statistics. `step_taken` is a flag on the device: where it
    is False, because the optimizer skipped the step, the EMA does not move. The host never waits for the flag.
    """
    averages, weights = local_shards(ema.parameters()), local_shards(source.parameters())
    if step_taken is None:
        torch._foreach_lerp_(averages, weights, 1.0 - momentum)  # pyright: ignore
    else:
        weight = torch.where(step_taken, 1.0 - momentum, 0.0)
        torch._foreach_lerp_(averages, weights, [weight] * len(averages))  # pyright: ignore
