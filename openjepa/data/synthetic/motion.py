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

SLOWDOWN = 0.5  # speed of the blue and the green object in the last frame, relative to the first

SUBSTEPS = 4  # of a frame in the simulation

POSITIONS = 24  # middle frames that are drawn for each scene, to choose one in which blue and green are near each other

GAPS = (0.02, 0.30)  # between the edges of blue and green in the middle frame

VELOCITIES = 64  # drawn for each scene, to choose some that lead to a hit, or to none

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
    reversed: Int[Tensor, "S"]  # whether blue and green speed up instead of slowing down; -1 without either


def draw_motion(rng: CounterRNG, frames: int) -> Motion:
    """Draw how everything moves, a function of (seed, number of the scene) alone.

    Red glides over the others at constant speed; in the middle frame it is at a position that does not depend on its
    velocity. Blue and green slow down, bounce off the walls and off each other; in a reversed scene, backwards.
    """
    radius = MIN_RADIUS + (MAX_RADIUS - MIN_RADIUS) * rng.uniform("radius", OBJECTS)
    direction = (rng.uniform("direction") * DIRECTIONS).long()
    speed = (rng.uniform("speed") * len(SPEEDS)).long()
    present = torch.arange(OBJECTS) < 1 + (rng.uniform("count") * OBJECTS).long()[:, None]
    backwards = rng.uniform("backwards") < 0.5
    others, hits = draw_others(rng, frames, radius[:, 1:], backwards)
    center = torch.cat([red_path(rng, frames, direction, speed)[:, :, None], others], 2)
    spin = (2 * rng.uniform("spin", 1, OBJECTS) - 1) * math.pi / frames
    angle = rng.uniform("angle", 1, OBJECTS) * 2 * math.pi + spin * torch.arange(frames)[:, None]
    camera = (2 * rng.uniform("drift", 1, 2) - 1) * DRIFT * clock(frames)[:, None]
    hit = torch.where(present.all(1), hits.long(), -1)
    reverse = torch.where(present[:, 1], backwards.long(), -1)
    return Motion(center, angle, radius, camera, present, direction, speed, hit, reverse)


def clock(frames: int) -> Float[Tensor, "F"]:
    """Return the time of each frame, as a fraction of the clip: 0 at the middle frame, frames // 2."""
    return (torch.arange(frames) - frames // 2) / max(1, frames - 1)


def red_path(
    rng: CounterRNG, frames: int, direction: Int[Tensor, "S"], speed: Int[Tensor, "S"]
) -> Float[Tensor, "S F 2"]:
    """Return the path of the red object; direction and length vary a little within their classes."""
    jitter = 2 * rng.uniform("velocity", 2) - 1
    angle = (direction + 0.25 * jitter[:, 0]) * (2 * math.pi / DIRECTIONS)
    length = REACH * torch.tensor(SPEEDS)[speed] * (1 + 0.1 * jitter[:, 1])
    path = length[:, None] * torch.stack([angle.cos(), angle.sin()], -1)
    middle = 0.34 + 0.32 * rng.uniform("middle", 2)
    return middle[:, None] + path[:, None] * clock(frames)[:, None]


def draw_others(
    rng: CounterRNG, frames: int, radius: Float[Tensor, "S 2"], backwards: Bool[Tensor, "S"]
) -> tuple[Float[Tensor, "S F 2 2"], Bool[Tensor, "S"]]:
    """Return the paths of two objects that slow down or, backwards, speed up, and whether they hit each other.

    They do so in about half of the scenes. Their positions in the middle frame are drawn first, whether they hit each
    other or not.
    """
    rows, half, friction = torch.arange(len(radius)), frames // 2, SLOWDOWN ** (1 / max(1, frames - 1))
    middle = draw_positions(rng, radius)[:, None].expand(-1, VELOCITIES, -1, -1)
    elapsed = torch.where(backwards, frames - 1 - half, half)[:, None, None]  # frames of friction until the middle one
    heading = 2 * math.pi * rng.uniform("heading", VELOCITIES, 2)
    length = 0.3 + 0.5 * rng.uniform("length", VELOCITIES, 2)
    speed = length * (1 - friction) / (1 - friction**frames) * friction**elapsed
    velocity = speed[..., None] * torch.stack([heading.cos(), heading.sin()], -1)
    radius = radius[:, None].expand(-1, VELOCITIES, -1)
    factor = torch.where(backwards, 1 / friction, friction)[:, None, None, None]
    after, hits_after = simulate(middle, velocity, radius, frames - half, factor)
    before, hits_before = simulate(middle, -velocity, radius, half + 1, 1 / factor)
    hits = hits_after | hits_before
    # the first velocity with the drawn outcome; without such a one, the first of all
    chosen = (hits == (rng.uniform("hit") < 0.5)[:, None]).to(torch.uint8).argmax(1)
    path = torch.cat([before[rows, chosen].flip(1)[:, :-1], after[rows, chosen]], 1)
    return path, hits[rows, chosen]


def draw_positions(rng: CounterRNG, radius: Float[Tensor, "S 2"]) -> Float[Tensor, "S 2 2"]:
    """Return the centers of two objects in the middle frame: anywhere inside the walls, but near each other."""
    inside = 1 - 2 * radius[:, None, :, None]
    center = radius[:, None, :, None] + inside * rng.uniform("positions", POSITIONS, 2, 2)
    gap = (center[:, :, 0] - center[:, :, 1]).norm(dim=-1) - radius.sum(1)[:, None]
    chosen = ((gap > GAPS[0]) & (gap < GAPS[1])).to(torch.uint8).argmax(1)
    return center[torch.arange(len(chosen)), chosen]


def simulate(
    center: Float[Tensor, "*S 2 2"],
    velocity: Float[Tensor, "*S 2 2"],
    radius: Float[Tensor, "*S 2"],
    frames: int,
    factor: Float[Tensor, "..."],
) -> tuple[Float[Tensor, "*S F 2 2"], Bool[Tensor, "*S"]]:
    """Move two discs of mass radius²; return their centers in each frame, and whether they hit each other.

    Speeds change by `factor` from one frame to the next.
    """
    hits, path, factor = torch.zeros(center.shape[:-2], dtype=torch.bool), [center], factor ** (1 / SUBSTEPS)
    for _ in range((frames - 1) * SUBSTEPS):
        center = center + velocity / SUBSTEPS
        outside = (center < radius[..., None]) & (velocity < 0) | (center > 1 - radius[..., None]) & (velocity > 0)
        velocity = torch.where(outside, -velocity, velocity) * factor
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
