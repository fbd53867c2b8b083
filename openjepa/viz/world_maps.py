"""Draw rooms with the agent, its goal and paths.   H W pixels of a frame  T steps  P steps of a plan"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from PIL import Image as Pillow
from PIL import ImageDraw

from openjepa.viz.canvas import COLORS, RGBImage

WALL, FREE = (70, 70, 70), (250, 250, 250)

ENLARGE = 5  # pixels of a picture for each pixel of a frame


def paint_room(
    wall: Bool[np.ndarray, "H W"],
    path: Float[np.ndarray, "T 2"],
    goal: Float[np.ndarray, "2"],
    zone: tuple[float, float, float] | None = None,
    plan: Float[np.ndarray, "P 2"] | None = None,
) -> RGBImage:
    """Return a picture of a room: walls, the path so far, the agent at its end, the goal as a ring, zone and plan."""
    pixels = np.where(wall[..., None], WALL, FREE).astype(np.uint8).repeat(ENLARGE, 0).repeat(ENLARGE, 1)
    picture = Pillow.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    if zone is not None:
        draw.ellipse(circle(zone[0], zone[1], zone[2]), outline=COLORS[5], width=2)
    for line, color in ((path, COLORS[1]), (plan, COLORS[5])):
        if line is not None and len(line) > 1:
            draw.line([tuple(ENLARGE * each) for each in line], fill=color, width=2)
    draw.ellipse(circle(float(goal[0]), float(goal[1]), 1.8), outline=COLORS[2], width=3)
    draw.ellipse(circle(float(path[-1, 0]), float(path[-1, 1]), 1.2), fill=COLORS[4])
    return np.asarray(picture)


def circle(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    left, upper, right, lower = (ENLARGE * each for each in (x - radius, y - radius, x + radius, y + radius))
    return left, upper, right, lower


def paint_frame(frame: UInt8[np.ndarray, "C H W"]) -> RGBImage:
    """Return a picture of what is seen: walls in gray, the dot in blue, a second dot in orange."""
    dot, wall, *second = frame.astype(np.float32) / 255
    picture = np.array(FREE) * (1 - wall[..., None]) + np.array(WALL) * wall[..., None]
    for light, color in zip((*second, dot), (*[COLORS[5]] * len(second), COLORS[4]), strict=True):
        paint = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)])
        picture = picture * (1 - light[..., None]) + paint * light[..., None]
    return picture.round().astype(np.uint8).repeat(ENLARGE, 0).repeat(ENLARGE, 1)


def draw_walls(axes: Axes, wall: Bool[np.ndarray, "H W"], start: np.ndarray | None, goal: np.ndarray) -> None:
    """Draw walls, a start as a dot and a goal as a star into a chart in pixels of the frame."""
    height, width = wall.shape
    shade = np.ma.masked_where(~wall, np.ones(wall.shape))
    axes.imshow(shade, extent=(0, width, height, 0), cmap="gray", vmin=0, vmax=3, zorder=2)
    axes.plot(*goal, "*", color=COLORS[5], markersize=11, markeredgecolor="white", zorder=5)
    if start is not None:
        axes.plot(*start, "o", color=COLORS[4], markersize=6, markeredgecolor="white", zorder=5)
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
