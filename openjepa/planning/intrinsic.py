"""What an imagined state costs by itself: its distance to a goal, or what rewards and ends of episodes teach.

R latents  N cells  D width  E features: N · D
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openjepa.planning.probes import nonlinear_probe
from openjepa.planning.recorded import Recorded

RowCost = Callable[[Float[Tensor, "R N D"]], Float[Tensor, "R"]]

HIDDEN, STEPS, ROWS, RATE = 128, 600, 128, 1e-3  # of the network that tells ends; ROWS of each kind


def distance_to(goal: Float[Tensor, "N D"]) -> RowCost:
    """Return the cost that is the distance of latents, as the root of the mean square.

    Its square would make a small fault near the goal cheap beside a large one, so that poles fall for the sake of the
    cart's position.
    """
    return lambda latents: (latents - goal).square().mean((1, 2)).sqrt()


def learn_rewards(recorded: Recorded) -> RowCost | None:
    """Return the cost that is the negative reward, which a network reads from latents; None if all rewards are equal.

    The action's own part of a reward is noise to it.
    """
    if recorded.rewards is None:
        return None
    rows = recorded.rewards.isfinite()
    rewards = recorded.rewards[rows, None]
    if rewards.std() < 1e-6:
        return None
    probe = nonlinear_probe(recorded.latents[rows].flatten(1), -rewards)
    return lambda latents: probe(latents.flatten(1))[:, 0]


def learn_ends(latents: Float[Tensor, "R N D"], terminated: Bool[Tensor, "R"], seed: int = 0) -> RowCost:
    """Return the probability that an episode is terminated in a state, by a network with one hidden layer.

    Each step sees as many ends as other states, so that the few ends count.
    """
    if not terminated.any():
        return lambda rows: rows.new_zeros(len(rows))
    ends, others = latents[terminated].flatten(1), latents[~terminated].flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(ends.shape[1], HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.ones(ROWS), torch.zeros(ROWS)])
    with torch.enable_grad():
        for _ in range(STEPS):
            rows = [each[torch.randint(len(each), (ROWS,), generator=generator)] for each in (ends, others)]
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(network(torch.cat(rows))[:, 0], labels).backward()
            optimizer.step()
    network.requires_grad_(False)
    return lambda rows: network(rows.flatten(1))[:, 0].sigmoid()
