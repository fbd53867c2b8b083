"""What does a world model know and imagine? Probes of its latents, imagined positions, and porous walls.

B rooms  R rows  N cells  D width of a latent  E features of a probe
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.data.synthetic.room_layouts import WALL, Rooms
from openjepa.data.synthetic.rooms import MAX_STEP, Episodes, draw_distractor, draw_episodes, draw_rooms, read_pixels
from openjepa.nn.world import LocatedWorld, World, encode_steps
from openjepa.planning.envs.rooms import RoomTasks
from openjepa.planning.probes import Probe, linear_probe, nonlinear_probe

WALKS = 3000  # episodes of 2 frames that probes learn from, in training layouts

TESTS = 300  # episodes of 16 steps in held-out layouts

PUSHES, PUSH_STEPS = 1000, 8  # into walls

PAST = 1.0  # pixels beyond the far side of a wall

CHUNK = 2048  # rows that are encoded at once


class Diagnosis(NamedTuple):
    """What a world's latents hold and what it imagines, on held-out layouts; lengths in pixels."""

    linear: dict[str, float]  # mean error of the linear probe: position, wall, door
    nonlinear: dict[str, float]
    summary: float | None  # mean error of the position by the locator's summary, linear probe
    imagined: dict[int, float]  # steps ahead → mean error of the position
    porosity: float  # share of the pushes that end past a wall
    pushes: int


class Decoder(NamedTuple):
    """A probe of positions, and what it reads."""

    read: Callable[[Float[Tensor, "R N D"]], Float[Tensor, "R E"]]
    probe: Probe

    def position(self, state: Float[Tensor, "R N D"]) -> Float[Tensor, "R 2"]:
        return self.probe(self.read(state))[..., :2]


def diagnose_world(world: World, modality: Any, name: str) -> tuple[Diagnosis, Decoder]:
    """Measure a world; also return the probe that reads positions best from what critic and actor read."""
    train = draw_episodes(name, CounterRNG.of(5, 0, np.arange(WALKS)), 1)
    test = draw_episodes(name, CounterRNG.of(6, 0, np.arange(TESTS)), 16, held_out=True)
    states, truth = encode_walks(world, modality, train)
    test_states, test_truth = encode_walks(world, modality, test)
    flat, test_flat = states.flatten(1), test_states.flatten(1)
    linear_flat = linear_probe(flat, truth)
    linear = mean_errors(linear_flat(test_flat), test_truth)
    nonlinear = mean_errors(nonlinear_probe(flat, truth)(test_flat), test_truth)
    located = isinstance(world, LocatedWorld)
    decoder = summary_decoder(world, states, truth) if located else Decoder(flatten, linear_flat)
    summary = None
    if located:
        summary = (decoder.position(test_states) - test_truth[:, :2]).norm(dim=-1).mean().item()
    first = test_states.unflatten(0, (TESTS, -1))[:, 0]
    imagined = decoder.position(world.unroll(first, test.action).flatten(0, 1)).unflatten(0, (TESTS, -1))
    error = (imagined - test.position[:, 1:]).norm(dim=-1).mean(0)
    ahead = {steps: error[steps - 1].item() for steps in (1, 8, 16)}
    past = push_into_walls(world, modality, name, decoder)
    return Diagnosis(linear, nonlinear, summary, ahead, past.float().mean().item(), len(past)), decoder


def flatten(rows: Float[Tensor, "R N D"]) -> Float[Tensor, "R E"]:
    return rows.flatten(1)


def summary_decoder(world: World, states: Float[Tensor, "R N D"], truth: Float[Tensor, "R K"]) -> Decoder:
    """Fit a probe of positions on the summaries of latents."""
    probe = nonlinear_probe(world.locate(states).summary, truth[:, :2])
    return Decoder(lambda rows: world.locate(rows).summary, probe)


@torch.no_grad()
def fit_decoder(world: World, modality: Any, name: str) -> Decoder:
    """Fit a probe of positions on the summaries of latents in training layouts."""
    walks = draw_episodes(name, CounterRNG.of(5, 0, np.arange(WALKS)), 1)
    return summary_decoder(world, *encode_walks(world, modality, walks))


def encode_walks(world: World, modality: Any, walks: Episodes) -> tuple[Float[Tensor, "R N D"], Float[Tensor, "R 4"]]:
    """Return the latents of all frames of walks, and the position, the wall's column and the door's row in them."""
    steps = walks.position.shape[1]
    states = encode(world, modality, walks.frames().flatten(0, 1))
    layout = read_layout(walks.rooms).repeat_interleave(steps, 0)
    return states, torch.cat([walks.position.flatten(0, 1), layout], 1)


def encode(world: World, modality: Any, frames: Tensor) -> Float[Tensor, "R N D"]:
    """Encode single frames."""
    parts = [encode_steps(world, modality.tokens(part[:, None]), 1)[:, 0] for part in frames.split(CHUNK)]
    return torch.cat(parts)


def read_layout(rooms: Rooms) -> Float[Tensor, "B 2"]:
    """Return the first column of the upright wall, and the first row of the upper door in it."""
    column = rooms.wall.sum(1).argmax(1)  # the upright wall has the most pixels
    line = rooms.wall[torch.arange(len(column)), :, column]
    return torch.stack([column, (~line).float().argmax(1)], 1).float()


def mean_errors(predicted: Float[Tensor, "R 4"], truth: Float[Tensor, "R 4"]) -> dict[str, float]:
    """Return the mean distance of positions, and the mean absolute errors of walls and doors."""
    difference = predicted - truth
    names = {"position": difference[:, :2], "wall": difference[:, 2:3], "door": difference[:, 3:]}
    return {name: each.norm(dim=-1).mean().item() for name, each in names.items()}


def push_into_walls(world: World, modality: Any, name: str, decoder: Decoder) -> Bool[Tensor, "B"]:
    """Imagine pushes straight into the upright wall, away from doors; return which end past its far side."""
    rooms = draw_rooms(name, CounterRNG.of(7, 0, np.arange(PUSHES)), held_out=True)
    column = read_layout(rooms)[:, 0].long()
    start, from_left = starts_at_walls(rooms, column)
    inside = read_pixels(rooms.room, start) >= 0
    action = torch.stack([torch.where(from_left, MAX_STEP, -MAX_STEP), torch.zeros(PUSHES)], 1)
    second = draw_distractor(name, rooms, CounterRNG.of(7, 0, np.arange(PUSHES)), 1)
    state = encode(world, modality, RoomTasks(rooms, start, start, second).frames_at(start))
    for _ in range(PUSH_STEPS):
        state = world.step(state, action)
    x = decoder.position(state)[:, 0]
    past = torch.where(from_left, x > column + WALL + PAST, x < column - PAST)
    return past[inside]


def starts_at_walls(rooms: Rooms, column: Int[Tensor, "B"]) -> tuple[Float[Tensor, "B 2"], Bool[Tensor, "B"]]:
    """Return positions 1 to 3 pixels before the upright wall, and whether they are left of it.

    The wall has no door within 3 rows of them.
    """
    rng = CounterRNG.of(8, 0, np.arange(len(column)))
    from_left, gap = rng.uniform("side", 1)[:, 0] < 0.5, 1 + 2 * rng.uniform("gap", 1)[:, 0]
    line = rooms.wall[torch.arange(len(column)), :, column]
    closed = torch.stack([line.roll(rows, 1) for rows in range(-3, 4)]).all(0)
    closed[:, :3] = closed[:, -3:] = False
    row = rng.uniform("row", line.shape[1]).masked_fill(~closed, -1.0).argmax(1)
    return torch.stack([torch.where(from_left, column - gap, column + WALL + gap), row + 0.5], 1), from_left
