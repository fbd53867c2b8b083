"""Render clips of moving objects, with labels that no single frame tells.

S scenes  F frames  K objects  H height  W width
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.data.synthetic.motion import DIRECTIONS, MAX_RADIUS, OBJECTS, SPEEDS, Motion, draw_motion

TASKS = {"direction": DIRECTIONS, "speed": len(SPEEDS), "hit": 2, "reversed": 2, "count": OBJECTS}

COLORS = torch.tensor([[0.85, 0.15, 0.12], [0.15, 0.30, 0.90], [0.10, 0.65, 0.25]])  # red, blue, green

SHAPES = 3  # disc, square, triangle

TEXTURE = 6  # cells of the table's texture along a side of the frame

NOISE = 0.02  # standard deviation of the camera's noise

CHUNK = 32  # scenes rendered at a time


class MovingScenes(NamedTuple):
    """Clips and their labels; a label is -1 where a scene has too few objects for it."""

    clips: UInt8[Tensor, "S F 3 H W"]
    direction: Int[Tensor, "S"]  # of the red object: 8 classes
    speed: Int[Tensor, "S"]  # of the red object: 4 classes
    hit: Int[Tensor, "S"]  # whether the blue and the green object hit each other
    reversed: Int[Tensor, "S"]  # whether time runs backwards for blue and green, which then speed up, not slow down
    count: Int[Tensor, "S"]  # objects - 1


class Geometry(NamedTuple):
    """What is where in each frame."""

    instance: UInt8[Tensor, "S F H W"]  # 0: table; 1 red, 2 blue, 3 green
    depth: Float[Tensor, "S F H W"]  # distance from the camera; the table is at 1
    flow: Float[Tensor, "S F 2 H W"]  # where each pixel's content is in the next frame: (x, y) in pixels


class Window(NamedTuple):
    """The pixels around an object, as indices into a canvas, and how much of each it covers."""

    index: Int[Tensor, "S F P"]
    cover: Float[Tensor, "S F P"]


def render_clips(num_scenes: int, frames: int, pixels: int, seed: int, first: int = 0) -> MovingScenes:
    """Render clips of `pixels`×`pixels`; scene i is a function of (seed, first + i) alone."""
    parts = []
    for start in range(first, first + num_scenes, CHUNK):
        rng = CounterRNG.of(seed, 0, np.arange(start, min(start + CHUNK, first + num_scenes)))
        motion = draw_motion(rng, frames)
        count = motion.present.sum(1) - 1
        clips = draw_frames(rng, motion, pixels)
        parts.append((clips, motion.direction, motion.speed, motion.hit, motion.reversed, count))
    return MovingScenes(*(torch.cat(part) for part in zip(*parts, strict=True)))


def in_channels(clips: UInt8[Tensor, "S F 3 H W"], channels: int) -> UInt8[Tensor, "S F C H W"]:
    """Return clips in gray for 1 channel, and as they are for 3."""
    return clips.float().mean(2, keepdim=True).round().to(torch.uint8) if channels == 1 else clips


def render_geometry(num_scenes: int, frames: int, pixels: int, seed: int, first: int = 0) -> Geometry:
    """Return what is where in the clips that `render_clips` renders."""
    rng = CounterRNG.of(seed, 0, np.arange(first, first + num_scenes))
    motion = draw_motion(rng, frames)
    covers = torch.stack([cover > 0.5 for cover in object_covers(rng, motion, pixels)], 2)  # S F K H W
    instance = torch.zeros(covers[:, :, 0].shape, dtype=torch.uint8)
    depth = torch.ones(instance.shape)
    flow = pixels * (-motion.camera.diff(dim=1, append=motion.camera[:, -1:]))[..., None, None]
    flow = flow.expand(-1, -1, -1, pixels, pixels).clone()
    for k in range(OBJECTS - 1, -1, -1):  # from the back to the front: red is in front
        inside = covers[:, :, k]
        instance[inside], depth[inside] = k + 1, 0.5 + 0.1 * k
        flow = torch.where(inside[:, :, None], object_flow(motion, k, pixels), flow)
    return Geometry(instance, depth, flow)


def object_flow(motion: Motion, k: int, pixels: int) -> Float[Tensor, "S F 2 H W"]:
    """Return the motion of an object's points to the next frame, in pixels: it moves and turns."""
    center = motion.center[:, :, k] - motion.camera
    offset = pixel_centers(pixels) - center[..., None, None]  # S F 2 H W
    turn = motion.angle[:, :, k].diff(dim=1, append=motion.angle[:, -1:, k])[..., None, None]
    cos, sin = turn.cos(), turn.sin()
    turned = torch.stack(
        [cos * offset[:, :, 0] - sin * offset[:, :, 1], sin * offset[:, :, 0] + cos * offset[:, :, 1]], 2
    )
    return pixels * (center.diff(dim=1, append=center[:, -1:])[..., None, None] + turned - offset)


def draw_frames(rng: CounterRNG, motion: Motion, pixels: int) -> UInt8[Tensor, "S F 3 H W"]:
    """Draw the table, then green, blue and red on it, and the camera's noise."""
    canvas = F.pad(draw_table(rng, motion, pixels), [window_margin(pixels)] * 4).flatten(3)
    shade = 0.75 + 0.5 * rng.uniform("shade", OBJECTS, 1)
    colors = (COLORS * shade).clamp(max=1.0)  # S K 3
    for k in range(OBJECTS - 1, -1, -1):
        window = object_window(rng, motion, k, pixels)
        index = window.index[:, :, None].expand(-1, -1, 3, -1)
        canvas.scatter_(3, index, canvas.gather(3, index).lerp(colors[:, None, k, :, None], window.cover[:, :, None]))
    frames = crop_margin(canvas, pixels) + NOISE * camera_noise(rng, canvas.shape[1], pixels)
    return frames.mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def draw_table(rng: CounterRNG, motion: Motion, pixels: int) -> Float[Tensor, "S F 3 H W"]:
    """Draw a smooth random texture that stays on the table while the camera moves."""
    cells = TEXTURE + 2  # one more on each side, for the camera's path
    texture = 0.35 + 0.4 * rng.uniform("texture", 3, cells, cells)
    at = (pixel_centers(pixels)[:, None, None] + motion.camera.permute(2, 0, 1)[..., None, None]) * TEXTURE + 1
    grid = (2 * at / cells - 1).permute(1, 2, 3, 4, 0).flatten(1, 2)  # S F·H W 2
    table = F.grid_sample(texture, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return table.unflatten(2, (-1, pixels)).transpose(1, 2)


def object_window(rng: CounterRNG, motion: Motion, k: int, pixels: int) -> Window:
    """Return the pixels around an object, and how much of each it covers; edges are one pixel wide."""
    shape = (rng.uniform("shape", OBJECTS) * SHAPES).long()
    center = pixels * (motion.center[:, :, k] - motion.camera)  # S F 2
    corner = center.long().clamp(0, pixels - 1)
    margin = window_margin(pixels)
    step = torch.arange(-margin, margin)
    offset = step + 0.5 + (corner - center)[..., None]  # S F 2 w
    x, y = torch.broadcast_tensors(offset[:, :, 0, None, :], offset[:, :, 1, :, None])
    distance = shape_distance(torch.stack([x, y], 2), motion.angle[:, :, k], pixels * motion.radius[:, k], shape[:, k])
    cover = (0.5 - distance).clamp(0, 1) * motion.present[:, k, None, None, None]
    line = step + margin
    index = (corner[..., 1, None] + line)[..., :, None] * (pixels + 2 * margin) + (corner[..., 0, None] + line)[
        ..., None, :
    ]
    return Window(index.flatten(2), cover.flatten(2))


def window_margin(pixels: int) -> int:
    """Return half the side of the window around an object; canvases have this margin, so that windows fit."""
    return int(1.3 * MAX_RADIUS * pixels) + 2


def crop_margin(canvas: Float[Tensor, "S F C P"], pixels: int) -> Float[Tensor, "S F C H W"]:
    """Cut a frame out of its canvas."""
    margin = window_margin(pixels)
    inside = slice(margin, margin + pixels)
    return canvas.unflatten(3, (pixels + 2 * margin, -1))[..., inside, inside]


def object_covers(rng: CounterRNG, motion: Motion, pixels: int) -> list[Float[Tensor, "S F H W"]]:
    """Return how much of each pixel each object covers, hidden objects included."""
    covers = []
    for k in range(OBJECTS):
        window = object_window(rng, motion, k, pixels)
        canvas = torch.zeros(*window.cover.shape[:2], 1, (pixels + 2 * window_margin(pixels)) ** 2)
        canvas.scatter_(3, window.index[:, :, None], window.cover[:, :, None])
        covers.append(crop_margin(canvas, pixels)[:, :, 0])
    return covers


def shape_distance(
    offset: Float[Tensor, "S F 2 H W"], angle: Float[Tensor, "S F"], radius: Float[Tensor, "S"], shape: Int[Tensor, "S"]
) -> Float[Tensor, "S F H W"]:
    """Return the distance of each pixel from the edge of a disc, square or triangle; negative inside."""
    cos, sin = angle.cos()[..., None, None], angle.sin()[..., None, None]
    x, y = cos * offset[:, :, 0] + sin * offset[:, :, 1], cos * offset[:, :, 1] - sin * offset[:, :, 0]
    radius, shape = radius[:, None, None, None], shape[:, None, None, None]
    disc = (x * x + y * y).sqrt() - radius
    square = torch.maximum(x.abs(), y.abs()) - 0.85 * radius
    triangle = torch.maximum(0.866 * x.abs() + 0.5 * y, -y) - 0.65 * radius
    return torch.where(shape == 0, disc, torch.where(shape == 1, square, triangle))


def camera_noise(rng: CounterRNG, frames: int, pixels: int) -> Float[Tensor, "S F 3 H W"]:
    """Return noise of variance 1 for each frame: random crops of one sheet."""
    side = pixels + 64
    sheet = torch.randn(3, side, side, generator=torch.Generator().manual_seed(0))
    corner = (rng.uniform("noise", frames, 2) * 64).long().tolist()
    crops = [[sheet[:, y : y + pixels, x : x + pixels] for y, x in scene] for scene in corner]
    return torch.stack([torch.stack(scene) for scene in crops])


def pixel_centers(pixels: int) -> Float[Tensor, "2 H W"]:
    """Return the (x, y) of each pixel's center, in units of the frame's side."""
    line = (torch.arange(pixels) + 0.5) / pixels
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y])


def write_clips(
    folder: Path,
    num_scenes: int,
    frames: int,
    pixels: int,
    seed: int,
    first: int = 0,
    progress: Callable[[range], Iterable[int]] = iter,
) -> None:
    """Write clips as .npy files (frames, height, width, channels) like a user's, and a table of labels, labels.csv.

    `progress` is a function that iterates and reports how far it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["file", *TASKS])
        for start in progress(range(first, first + num_scenes, CHUNK)):
            scenes = render_clips(min(CHUNK, first + num_scenes - start), frames, pixels, seed, start)
            for row, clip in enumerate(scenes.clips):
                name = f"{start + row:06d}.npy"
                np.save(folder / name, clip.permute(0, 2, 3, 1).numpy())
                labels = [int(getattr(scenes, task)[row]) for task in TASKS]
                table.writerow([name, *("" if label < 0 else label for label in labels)])
