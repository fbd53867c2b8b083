"""Move discs on a table: constant speed, friction, walls and elastic collisions.

S scenes  K objects  F frames.  Lengths are in units of the frame's side, times in frames.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openjepa.core.rng import CounterRNG

OBJECTS = 3  # red, blue, green: the first is the one whose motion is labeled

DIRECTIONS = 8

SPEEDS = (0.5, 1.0, 1.5, 2.0)  # classes of the red object's path within a clip, times REACH

REACH = 0.25  # of the side of the frame

MIN_RADIUS, MAX_RADIUS = 0.07, 0.11

FRICTION = 0.9  # speed that the blue and the green object keep from one frame to the next

SUBSTEPS = 4  # of a frame in the simulation

CANDIDATES = 12  # starts that are drawn for each scene, to choose one with a hit or one without

DRIFT = 0.06  # largest path of the camera within a clip


class Motion(NamedTuple):
    """Where everything is in each frame, and what happens."""

    center: Float[Tensor, "S F K 2"]  # (x, y) on the table, from the left upper corner
    angle: Float[Tensor, "S F K"]
    radius: Float[Tensor, "S K"]
    camera: Float[Tensor, "S F 2"]  # position of the camera: the frame shows the table minus this
    present: Bool[Tensor, "S K"]
    direction: Int[Tensor, "S"]  # of the red object on the table: 0 right, 1 right and down, 2 down …
    speed: Int[Tensor, "S"]  # of the red object: class of SPEEDS
    hit: Int[Tensor, "S"]  # whether blue and green hit each other; -1 without both


def draw_motion(rng: CounterRNG, frames: int) -> Motion:
    """Draw how everything moves, a function of (seed, number of the scene) alone.

    Red glides over the others at constant speed; in the middle of the clip it is at a position that does not depend on
    its velocity. Blue and green slow down, bounce off the walls and off each other.
    """
    radius = MIN_RADIUS + (MAX_RADIUS - MIN_RADIUS) * rng.uniform("radius", OBJECTS)
    direction = (rng.uniform("direction") * DIRECTIONS).long()
    speed = (rng.uniform("speed") * len(SPEEDS)).long()
    present = torch.arange(OBJECTS) < 1 + (rng.uniform("count") * OBJECTS).long()[:, None]
    others, hits = draw_others(rng, frames, radius[:, 1:])
    center = torch.cat([red_path(rng, frames, direction, speed)[:, :, None], others], 2)
    spin = (2 * rng.uniform("spin", 1, OBJECTS) - 1) * math.pi / frames
    angle = rng.uniform("angle", 1, OBJECTS) * 2 * math.pi + spin * torch.arange(frames)[:, None]
    camera = (2 * rng.uniform("drift", 1, 2) - 1) * DRIFT * clock(frames)[:, None]
    hit = torch.where(present.all(1), hits.long(), -1)
    return Motion(center, angle, radius, camera, present, direction, speed, hit)


def clock(frames: int) -> Float[Tensor, "F"]:
    """Return the time of each frame, from -1/2 at the first to 1/2 at the last."""
    return torch.linspace(-0.5, 0.5, frames) if frames > 1 else torch.zeros(1)


def red_path(
    rng: CounterRNG, frames: int, direction: Int[Tensor, "S"], speed: Int[Tensor, "S"]
) -> Float[Tensor, "S F 2"]:
    """Return the path of the red object; direction and length vary a little within their classes."""
    jitter = 2 * rng.uniform("velocity", 2) - 1
    angle = (direction + 0.25 * jitter[:, 0]) * (2 * math.pi / DIRECTIONS)
    length = REACH * torch.tensor(SPEEDS)[speed] * (1 + 0.1 * jitter[:, 1])
    path = length[:, None] * torch.stack([angle.cos(), angle.sin()], -1)
    middle = 0.32 + 0.36 * rng.uniform("middle", 2)
    return middle[:, None] + path[:, None] * clock(frames)[:, None]


def draw_others(
    rng: CounterRNG, frames: int, radius: Float[Tensor, "S 2"]
) -> tuple[Float[Tensor, "S F 2 2"], Bool[Tensor, "S"]]:
    """Return the paths of two objects that slow down, and whether they hit each other: in half of the scenes."""
    start = rng.uniform("start", CANDIDATES, 2, 2)
    center = radius[:, None, :, None] + start * (1 - 2 * radius[:, None, :, None])  # S candidates 2 2
    heading = 2 * math.pi * rng.uniform("heading", CANDIDATES, 2)
    length = (0.3 + 0.5 * rng.uniform("length", CANDIDATES, 2)) * (1 - FRICTION) / (1 - FRICTION**frames)
    velocity = length[..., None] * torch.stack([heading.cos(), heading.sin()], -1)
    paths, hits = simulate(center, velocity, radius[:, None].expand(-1, CANDIDATES, -1), frames)
    wanted = rng.uniform("hit") < 0.5
    apart = (center[:, :, 0] - center[:, :, 1]).norm(dim=-1) > 1.2 * radius.sum(1)[:, None]
    fits = (hits == wanted[:, None]) & apart
    chosen = fits.to(torch.uint8).argmax(1)
    rows = torch.arange(len(chosen))
    return paths[rows, chosen], hits[rows, chosen]


def simulate(
    center: Float[Tensor, "*S 2 2"], velocity: Float[Tensor, "*S 2 2"], radius: Float[Tensor, "*S 2"], frames: int
) -> tuple[Float[Tensor, "*S F 2 2"], Bool[Tensor, "*S"]]:
    """Move two discs of mass radius²; return their centers in each frame, and whether they hit each other."""
    hits, path = torch.zeros(center.shape[:-2], dtype=torch.bool), [center]
    for _ in range((frames - 1) * SUBSTEPS):
        center = center + velocity / SUBSTEPS
        outside = (center < radius[..., None]) & (velocity < 0) | (center > 1 - radius[..., None]) & (velocity > 0)
        velocity = torch.where(outside, -velocity, velocity) * FRICTION ** (1 / SUBSTEPS)
        velocity, touching = collide(center, velocity, radius)
        hits = hits | touching
        path.append(center)
    return torch.stack(path[::SUBSTEPS], -3), hits


def collide(
    center: Float[Tensor, "*S 2 2"], velocity: Float[Tensor, "*S 2 2"], radius: Float[Tensor, "*S 2"]
) -> tuple[Float[Tensor, "*S 2 2"], Bool[Tensor, "*S"]]:
    """Exchange momentum along the line between two discs that touch and approach each other."""
    offset = center[..., 1, :] - center[..., 0, :]
    distance = offset.norm(dim=-1)
    normal = offset / distance.clamp(min=1e-9)[..., None]
    approach = ((velocity[..., 0, :] - velocity[..., 1, :]) * normal).sum(-1)
    touching = (distance < radius.sum(-1)) & (approach > 0)
    mass = radius.square()
    impulse = torch.where(touching, 2 * approach / mass.sum(-1), 0.0)[..., None] * normal
    change = torch.stack([-impulse * mass[..., 1, None], impulse * mass[..., 0, None]], -2)
    return velocity + change, touching
