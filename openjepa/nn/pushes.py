"""Imagine what pushes in several directions lead to.   R states  P directions  L lengths  A action's width"""

from __future__ import annotations

from hashlib import blake2b

import torch
from jaxtyping import Float, UInt8
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
    ends = []
    for step in range(1, max(lengths) + 1):
        state = world.step(state, action)
        if step in lengths:
            ends.append(world.locate(state))
    return Location(*(torch.stack(part, 1).flatten(0, 1) for part in zip(*ends, strict=True)))


class PushCache:
    """What a frozen world imagined from the states of each episode, kept in memory in half precision.

    An episode is imagined alone when it is first met, so that what is kept does not depend on the others. Episodes are
    distinguished by their frames; those beyond `limit` are imagined again each time.
    """

    def __init__(self, world: World, actions: Float[Tensor, "P A"], lengths: tuple[int, ...], limit: int = 2048):
        self.world, self.actions, self.lengths, self.limit = world, actions, lengths, limit
        self.ends: dict[bytes, Location] = {}

    def __call__(self, frames: UInt8[Tensor, "B S C H W"], states: Float[Tensor, "B S N D"]) -> Location:
        """Return where all states of the episodes are after the pushes: B · S · P · L rows."""
        ends = [self.imagine(episode, rows) for episode, rows in zip(frames, states, strict=True)]
        return Location(*(torch.cat(part).float() for part in zip(*ends, strict=True)))

    def imagine(self, frames: UInt8[Tensor, "S C H W"], states: Float[Tensor, "S N D"]) -> Location:
        """Imagine the pushes from the states of one episode, or return what was imagined before."""
        key = blake2b(frames.cpu().numpy().tobytes()).digest()
        if key in self.ends:
            return self.ends[key]
        imagined = imagine_pushes(self.world, states, self.actions.to(states), self.lengths)
        ends = Location(*(part.half() for part in imagined))
        if len(self.ends) < self.limit:
            self.ends[key] = ends
        return ends
