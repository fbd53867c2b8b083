"""What an actor knows and what it returns.   B tasks  N cells  D width of a latent  A action's width"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from openjepa.nn.locator import Location
from openjepa.planning.memory import Memory


class Situation(NamedTuple):
    """What an actor sees and remembers."""

    state: Float[Tensor, "B N D"]  # the latent of what is seen now
    where: Location  # its summary
    value: Float[Tensor, "B"]  # the critic's: what is still to be paid
    memory: Memory


class Decision(NamedTuple):
    """An action for each task, and what it cost to choose it."""

    action: Float[Tensor, "B A"]
    imagined_steps: Int[Tensor, "B"]  # of the world model


@runtime_checkable
class Actor(Protocol):
    """Choose an action for each task."""

    def __call__(self, now: Situation) -> Decision: ...
