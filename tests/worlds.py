"""Worlds of rooms for tests: exact ones, whose latents are what there is to know, and a tiny one to train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from openjepa.core.types import Tokens
from openjepa.data.synthetic.geodesic import distance_at, geodesic_distance
from openjepa.data.synthetic.room_layouts import SIDE, build_rooms
from openjepa.data.synthetic.rooms import DOT, MAX_STEP, move
from openjepa.methods.actor import ActingWorld
from openjepa.methods.cloning import Cloning
from openjepa.methods.critic import ValuedWorld
from openjepa.methods.world_model import WorldModel
from openjepa.nn.convnet import ConvNetConfig
from openjepa.nn.directions import directions
from openjepa.nn.level import LevelConfig
from openjepa.nn.locator import Location
from openjepa.nn.value_iteration import GoalField
from openjepa.nn.world import World
from openjepa.planning.systems import RoomSystem
from openjepa.recipes.ts_jepa import ts_jepa
from openjepa.recipes.world_levels import world_levels
from openjepa.recipes.world_rooms import world_rooms
from openjepa.training.config import Pretrain
from openjepa.training.stages import Stages

FAR = 100.0  # steps, of positions in walls
PUSHES = directions(8, 2, MAX_STEP)


class ExactModality:
    """Reads a frame of two rooms: its only token is (x, y, the wall's first column, the door's first row)."""

    action_dim = 2

    def tokens(self, view: Tensor) -> Tokens:
        frames = view.flatten(0, 1).float()
        dot, wall = frames[:, 0], frames[:, 1] > 0
        column = wall.sum(1).argmax(1)
        door = (~wall[torch.arange(len(wall)), :, column]).float().argmax(1)
        latent = torch.stack([peak(dot.amax(1)), peak(dot.amax(2)), column.float(), door.float()], -1)
        return Tokens(latent.view(len(view), -1, 4), torch.zeros(len(view), view.shape[1], 1))


def peak(profile: Tensor) -> Tensor:
    """Return where a Gaussian that was rounded to bytes has its peak: the logarithm is a parabola."""
    pixel = profile.argmax(1).clamp(1, profile.shape[1] - 2)
    left, middle, right = (profile.gather(1, pixel[:, None] + by)[:, 0].clamp(min=0.5).log() for by in (-1, 0, 1))
    assert DOT > 1  # otherwise the neighbors of the peak would be too dark
    return pixel + 0.5 + 0.5 * (right - left) / (2 * middle - left - right)


def walls_of(state: Tensor) -> Tensor:
    """Return the walls that a latent knows."""
    return build_rooms(state[:, 0, 2:].round().long()).wall


class ExactParts:
    """What the exact worlds share: latents as they are, dynamics of the environment."""

    porous = False

    def forward(self, tokens: Tokens, keep: object = None, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        return (tokens,)

    def dynamics(self, state: Tensor, action: Tensor) -> Tensor:
        walls = walls_of(state)
        moved = move(walls & (not self.porous), state[:, 0, :2], action)
        return torch.cat([moved[:, None], state[..., 2:]], -1)

    def value_field(self, goal: Tensor, batch: int) -> GoalField:
        distance = geodesic_distance(walls_of(goal), goal[:, 0, :2]).flatten(1)
        return GoalField(distance[:, None, :, None], goal[:, :, :2])

    def locate(self, state: Tensor) -> Location:
        return World.locate(self, state)  # type: ignore[arg-type]


class ExactWorld(ExactParts, World):  # type: ignore[misc]
    """A world with perfect latents; a porous one does not know that walls stop the dot."""

    def __init__(self, porous: bool = False):
        nn.Module.__init__(self)
        self.porous = porous


class ExactValues(nn.Module):
    """The steps of the shortest way."""

    def forward(self, field: GoalField, states: Location) -> Tensor:
        positions, tasks = states.summary[:, :2], len(field.maps)
        distance = field.maps[:, 0, :, 0].unflatten(1, (SIDE, SIDE)).repeat_interleave(len(positions) // tasks, 0)
        steps = (distance_at(distance, positions) / MAX_STEP).clamp(max=FAR)
        return steps.unflatten(0, (tasks, -1))[:, None]


class ExactValuedWorld(ExactParts, ValuedWorld):  # type: ignore[misc]
    def __init__(self):
        nn.Module.__init__(self)
        self.values = ExactValues()  # type: ignore[assignment]


class ExactActingWorld(ExactParts, ActingWorld):  # type: ignore[misc]
    """Also has a policy with the same logits everywhere."""

    def __init__(self, logits: Tensor | None = None):
        nn.Module.__init__(self)
        self.values = ExactValues()  # type: ignore[assignment]
        self.constant = torch.zeros(len(PUSHES)) if logits is None else logits

    def policy_field(self, goal: Tensor, batch: int) -> GoalField:
        return GoalField(goal[:, None], goal[:, :, :2])

    def logits(self, field: GoalField, states: Location) -> Tensor:
        tasks, goals = field.summary.shape[:2]
        return self.constant.expand(tasks, goals, len(states.summary) // tasks, -1)


def exact_system(world: World) -> RoomSystem:
    """Return an exact world as a system that was loaded."""
    return RoomSystem(Path(), "two-rooms", world, ExactModality(), PUSHES)


SHORT = {"batch_size": 2, "device": "cpu", "precision": "fp32", "report": False, "workers": 0, "threads": 1}


def tiny_runs(steps: int = 2) -> dict[str, Pretrain]:
    """Return runs of other methods of world models at the smallest size."""
    levels, carts = world_levels(), ts_jepa().runs[1]
    above = (LevelConfig(stride=2, dim=8, hidden=8),) * 2
    hierarchical = replace(levels.method, world=WorldModel(ConvNetConfig(dim=8, hidden=8, depth=1)), levels=above)
    vector = WorldModel(ConvNetConfig(dim=8, hidden=8, depth=1, latent="vector"), dynamics="mlp", target="ema")
    return {
        "levels": replace(
            levels, data=replace(levels.data, episodes=16, steps=7), method=hierarchical, steps=steps, **SHORT
        ),
        "cloning": replace(
            carts, data=replace(carts.data, episodes=16, steps=3), method=Cloning(vector), steps=steps, **SHORT
        ),
    }


def tiny_rooms(steps: int = 2) -> Stages:
    """Return the stages of `world-rooms` at the smallest size."""
    first, locator, second, third = world_rooms().runs
    model = replace(first.method, encoder=ConvNetConfig(hidden=8, depth=1))
    critic = replace(second.method, world=model, directions=4, lengths=(1, 2), goals=2)
    methods = (model, replace(locator.method, world=model), critic, replace(third.method, critic=critic, goals=2))
    short = {"steps": steps} | SHORT
    return Stages(
        tuple(
            replace(stage, data=replace(stage.data, episodes=16, steps=3), method=method, **short)
            for stage, method in zip((first, locator, second, third), methods, strict=True)
        )
    )
