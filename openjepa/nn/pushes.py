"""Imagine what pushes in several directions lead to.   R states  P directions  L lengths  A action's width"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.nn.locator import Location
from openjepa.nn.world import World


@torch.no_grad()
def imagine_pushes(
    world: World, states: Float[Tensor, "R N D"], actions: Float[Tensor, "P A"], lengths: tuple[int, ...]
) -> Location:
    """Return where each state is after 1 … of each action, at the given numbers of steps: R · P · L rows."""
    rows, pushes = len(states), len(actions)
    state = states.repeat_interleave(pushes, 0)
    action = actions.repeat(rows, 1)
    found = []
    for step in range(1, max(lengths) + 1):
        state = world.dynamics(state, action)
        if step in lengths:
            found.append(world.locate(state))
    summary, attention = (torch.stack(part, 1).flatten(0, 1) for part in zip(*found, strict=True))
    return Location(summary, attention)
