"""Levels of a hierarchy: each sees the one below on a coarser map and in longer steps.

B batch  T steps  F = T + 1 states  K steps of the level below in one of its own (t, f: own steps)  N cells (n: own)
D width  A width of an action  M width of a macro-action
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.nn.convnet import ConvNet
from openjepa.nn.dynamics import LocalDynamics
from openjepa.nn.world import World, unroll


@dataclass(frozen=True)
class LevelConfig:
    """Sizes of a level above the first."""

    stride: int = 4  # steps of the level below in one of its own
    pool: int = 2  # cells of the level below, to a side, in one of its own
    dim: int = 32  # width of a latent's cell
    hidden: int = 64  # channels of the hidden layers
    action_dim: int = 2  # width of a macro-action
    horizon: int = 4  # own steps of a roll-out in training


class MacroActions(nn.Module):
    """Summarize successive actions in a vector of length below 1, so that a planner knows what it may choose."""

    def __init__(self, actions: int, out: int, hidden: int = 64):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(actions, hidden), nn.SiLU(), nn.Linear(hidden, out))

    def forward(self, actions: Float[Tensor, "*B KA"]) -> Float[Tensor, "*B M"]:
        x = self.layers(actions)
        length = x.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        return x * (length.tanh() / length)


class LevelEncoder(nn.Module):
    """Convolutions over the map of the level below; the first one keeps every `pool`-th cell."""

    def __init__(self, below: int, cells: tuple[int, int], config: LevelConfig, depth: int = 2):
        super().__init__()
        pool, hidden = config.pool, config.hidden
        self.below, self.cells = cells, (-(-cells[0] // pool), -(-cells[1] // pool))
        self.first = nn.Conv2d(below, hidden, 2 * pool - 1, stride=pool, padding=pool - 1)
        self.convs = nn.ModuleList(nn.Conv2d(hidden, hidden, 3, padding=1) for _ in range(depth))
        self.norms = nn.ModuleList(nn.GroupNorm(1, hidden) for _ in range(depth))
        self.head = nn.Conv2d(hidden, config.dim, 1)

    def forward(self, state: Float[Tensor, "B N D"]) -> Float[Tensor, "B n d"]:
        """Encode states of the level below."""
        x = self.first(state.mT.unflatten(2, self.below))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + conv(F.silu(norm(x)))
        return self.head(F.silu(x)).flatten(2).mT


class Level(nn.Module):
    """An encoder of the states below, an encoder of macro-actions, and dynamics between its own states."""

    def __init__(self, below: int, cells: tuple[int, int], actions: int, config: LevelConfig):
        super().__init__()
        self.config = config
        self.encoder = LevelEncoder(below, cells, config)
        self.macro_actions = MacroActions(config.stride * actions, config.action_dim)
        self.dynamics = LocalDynamics(config.dim, config.action_dim, self.encoder.cells, config.hidden)

    @property
    def cells(self) -> tuple[int, int]:
        return self.encoder.cells

    def ascend(
        self, states: Float[Tensor, "B F N D"], actions: Float[Tensor, "B T A"]
    ) -> tuple[Float[Tensor, "B f n d"], Float[Tensor, "B t KA"]]:
        """Encode every `stride`-th state of the level below, and join the actions between them."""
        below = states[:, :: self.config.stride]
        return self.encoder(below.flatten(0, 1)).unflatten(0, below.shape[:2]), chunks(actions, self.config.stride)

    def hold(self, actions: Float[Tensor, "P A"]) -> Float[Tensor, "P M"]:
        """Return the macro-actions of taking each action all the time."""
        return self.macro_actions(actions.repeat(1, self.config.stride))

    def step(self, state: Float[Tensor, "B N D"], action: Float[Tensor, "B M"]) -> Float[Tensor, "B N D"]:
        """Imagine the state after a macro-action."""
        return self.dynamics(state, action)

    def unroll(self, state: Float[Tensor, "B N D"], actions: Float[Tensor, "B T M"]) -> Float[Tensor, "B T N D"]:
        """Imagine the states after each macro-action."""
        return unroll(self.step, state, actions)


class Hierarchy(World):
    """A world with levels above it: what reads a `World` reads its first level."""

    def __init__(self, perception: ConvNet, dynamics: nn.Module, actions: int, levels: tuple[LevelConfig, ...]):
        super().__init__(perception, dynamics)
        built, width, cells = [], perception.config.dim, perception.cells
        for config in levels:
            built.append(Level(width, cells, actions, config))
            width, cells, actions = config.dim, built[-1].cells, config.action_dim
        self.levels = nn.ModuleList(built)

    @property
    def above(self) -> list[Level]:
        """Return the levels above the first, from the lowest to the highest."""
        return list(self.levels)  # type: ignore[arg-type]


def chunks(actions: Float[Tensor, "B T A"], stride: int) -> Float[Tensor, "B t KA"]:
    """Join each `stride` actions in one row; the last ones are left out if they are fewer."""
    whole = actions.shape[1] // stride
    return actions[:, : whole * stride].unflatten(1, (whole, stride)).flatten(2)


def every_start(values: Tensor, stride: int) -> Tensor:
    """Return the second dimension from its first to its `stride`-th entry on, as rows of equal length.

    A level that keeps every `stride`-th state of these rows sees each state of the level below once.
    """
    length = values.shape[1] - stride + 1
    return torch.stack([values[:, start : start + length] for start in range(stride)], 1).flatten(0, 1)


def windows(values: Tensor, steps: int, overlap: int) -> Tensor:
    """Cut the second dimension into windows of `steps` that begin after each other; `overlap` more belong to the next.

    A remainder that fills no window is left out; what is shorter than one window stays as it is.
    """
    count = (values.shape[1] - overlap) // steps
    if count < 2:
        return values[:, : steps + overlap] if count else values
    cut = [values[:, start : start + steps + overlap] for start in range(0, count * steps, steps)]
    return torch.stack(cut, 1).flatten(0, 1)
