"""Short-term memory: what an agent did and what it cost, at each time.

B tasks  T records  D width of a state  A action's width
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Records(NamedTuple):
    """The newest records of each task, the oldest first."""

    time: Float[Tensor, "T"]
    state: Float[Tensor, "B T D"]  # a vector for each latent, such as where it attends
    action: Float[Tensor, "B T A"]
    cost: Float[Tensor, "B T"]


class Memory:
    """A list of (time, state, action, cost) for each of B tasks that keeps the newest `capacity`.

    Acting reads it to notice that a state was visited before and that a task is stuck; a critic can learn from it.
    Source: LeCun 2022, section 3.
    """

    def __init__(self, capacity: int = 256):
        self.capacity = capacity
        self.rows: list[tuple[float, Tensor, Tensor, Tensor]] = []

    def write(
        self, time: float, state: Float[Tensor, "B D"], action: Float[Tensor, "B A"], cost: Float[Tensor, "B"]
    ) -> None:
        """Add a record for every task, and forget the oldest if there are more than `capacity`."""
        self.rows.append((time, state, action, cost))
        del self.rows[: -self.capacity]

    def read(self, newest: int | None = None) -> Records:
        """Return the newest records, or all. Raises ValueError without any."""
        if not self.rows:
            raise ValueError("the memory is empty")
        rows = self.rows if newest is None else self.rows[-newest:]
        times, *columns = zip(*rows, strict=True)
        return Records(torch.tensor(times), *(torch.stack(column, 1) for column in columns))

    def visits(self, state: Float[Tensor, "B D"], radius: float) -> Float[Tensor, "B"]:
        """Return how many records of each task are within `radius` of a state."""
        if not self.rows:
            return state.new_zeros(len(state))
        return ((self.read().state - state[:, None]).norm(dim=-1) <= radius).float().sum(1)

    def is_stuck(self, state: Float[Tensor, "B D"], steps: int, radius: float) -> Bool[Tensor, "B"]:
        """Return which tasks stayed within `radius` of a state for the last `steps` records; none with less of them."""
        if len(self.rows) < steps:
            return torch.zeros(len(state), dtype=torch.bool, device=state.device)
        return ((self.read(steps).state - state[:, None]).norm(dim=-1) <= radius).all(1)
