"""Actions in evenly spread directions.   P directions  A action's width"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def directions(count: int, dim: int, length: float) -> Float[Tensor, "P A"]:
    """Return actions of this length in evenly spread directions: of one dimension two, of two `count` on a circle.

    Of more dimensions, forwards and backwards along each axis.
    """
    if dim == 2:
        angle = torch.arange(count) * (2 * math.pi / count)
        return length * torch.stack([angle.cos(), angle.sin()], -1)
    axes = length * torch.eye(dim)
    return torch.cat([axes, -axes])
