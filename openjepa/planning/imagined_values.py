"""A critic that is learned in imagination: what the states after this one will cost, if the agent acts well.

R latents  N cells  D width  K actions to choose from  A width of an action
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.nn.world import World
from openjepa.planning.intrinsic import RowCost

DISCOUNT = 0.98  # for each step: what happens within about 50 steps counts

UPDATES, ROWS, HIDDEN, RATE = 3000, 128, 128, 1e-3  # of the network

TARGET_RATE = 0.05  # part of the way that the target network moves in an update

RESTART, EXPLORE = 0.05, 0.2  # shares of the imagined episodes that start again, and of random actions, at each step


class Imagination(NamedTuple):
    """Where the critic learns."""

    world: World
    latents: Float[Tensor, "R N D"]  # of recorded observations, where imagined episodes start
    cost: RowCost  # of a state
    ended: RowCost  # probability that the episode ends in a state
    actions: Float[Tensor, "K A"]

    def step(self, latents: Float[Tensor, "R N D"]) -> Float[Tensor, "R K N D"]:
        """Imagine each action in each state."""
        count = len(self.actions)
        after = self.world.dynamics(latents.repeat_interleave(count, 0), self.actions.repeat(len(latents), 1))
        return after.unflatten(0, (-1, count))


def learn_values(imagination: Imagination, seed: int = 0) -> RowCost:
    """Learn the critic by fitted value iteration in the world model; return it as a cost of latents.

    v(z) = (1 - discount) · cost(z) + discount · min over actions of u(dynamics(z, action))
    u(z) = p · worst + (1 - p) · v(z), with p the probability that an episode ends in z, and the worst recorded cost

    Half of the states are recorded; the other half is what the best actions so far lead to in imagination, where no
    random episode goes. A critic lets an agent plan a few steps ahead where the goal is tens of steps away.
    Source: Ernst et al., JMLR 6, 2005, for fitted iteration; Sutton, 1990 (Dyna), for learning in a model.
    """
    generator = torch.Generator().manual_seed(seed)
    network = build_network(imagination.latents[0].numel(), seed)
    target = copy.deepcopy(network).requires_grad_(False)
    costs = imagination.cost(imagination.latents)
    lowest, worst = costs.min(), costs.max()

    def value_of(values: nn.Module, latents: Float[Tensor, "R N D"]) -> Float[Tensor, "R"]:
        ended = imagination.ended(latents)
        return ended * worst + (1 - ended) * values(latents.flatten(1))[:, 0]

    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, UPDATES)
    rows = draw_rows(imagination.latents, ROWS, generator)
    for _ in range(UPDATES):
        states = torch.cat([rows, draw_rows(imagination.latents, ROWS, generator)])
        with torch.no_grad():
            after = imagination.step(states)
            lowest_after = value_of(target, after.flatten(0, 1)).unflatten(0, after.shape[:2]).min(1)
            goals = (1 - DISCOUNT) * imagination.cost(states) + DISCOUNT * lowest_after.values
        with torch.enable_grad():
            optimizer.zero_grad()
            F.mse_loss(network(states.flatten(1))[:, 0], goals.clamp(lowest, worst)).backward()
        optimizer.step()
        schedule.step()
        move_towards(target, network)
        rows = continue_episodes(imagination, after[:ROWS], lowest_after.indices[:ROWS], generator)
    network.requires_grad_(False)
    return lambda latents: value_of(network, latents)


def build_network(width: int, seed: int) -> nn.Module:
    """Build the network, a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden = [nn.Linear(width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU()]
        return nn.Sequential(*hidden, nn.Linear(HIDDEN, 1))


@torch.no_grad()
def move_towards(target: nn.Module, network: nn.Module) -> None:
    """Move the weights of the target network a part of the way (EMA)."""
    for slow, fast in zip(target.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, TARGET_RATE)


def draw_rows(latents: Float[Tensor, "R N D"], count: int, generator: torch.Generator) -> Float[Tensor, "B N D"]:
    """Draw recorded latents."""
    return latents[torch.randint(len(latents), (count,), generator=generator)]


@torch.no_grad()
def continue_episodes(
    imagination: Imagination, after: Float[Tensor, "B K N D"], best: Tensor, generator: torch.Generator
) -> Float[Tensor, "B N D"]:
    """Return the states after the best actions, or random ones; imagined episodes that end start again."""
    count = len(after)
    random = torch.randint(after.shape[1], (count,), generator=generator)
    explore = torch.rand(count, generator=generator) < EXPLORE
    states = after[torch.arange(count), torch.where(explore, random, best)]
    restart = torch.rand(count, generator=generator) < RESTART
    restart |= imagination.ended(states) > 0.5
    return torch.where(restart[:, None, None], draw_rows(imagination.latents, count, generator), states)
