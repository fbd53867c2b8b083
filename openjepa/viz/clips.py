"""Lay clips out as strips: one frame for each time step of tubelets.   F frames  T time steps  N tubelets"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from torch import Tensor

MAX_STEPS = 8  # frames of a strip

CLIP_TILE = 112  # pixels of the longer side of a frame in a strip, about


def shown_steps(count: int) -> list[int]:
    """Return the time steps of a strip, evenly spaced, the first and the last among them."""
    return np.linspace(0, count - 1, min(MAX_STEPS, count)).round().astype(int).tolist()


def step_titles(data: Any) -> tuple[list[int], list[str]]:
    """Return the time steps of a strip, and a title for each: the number of its frame."""
    steps = shown_steps(data.tubelets[0])
    return steps, [f"frame {step_frame(data, step) + 1}" for step in steps]


def step_frame(data: Any, step: int) -> int:
    """Return the frame of a clip that stands for a time step: the middle one of its tubelets."""
    return step * data.tubelet + data.tubelet // 2


def step_pictures(data: Any, view: Tensor) -> UInt8[np.ndarray, "T H W 3"]:
    """Return a frame of a clip for each time step."""
    return data.play(view)[data.tubelet // 2 :: data.tubelet]


def by_step(data: Any, values: Shaped[np.ndarray, "N *V"]) -> Shaped[np.ndarray, "T rows columns *V"]:
    """Arrange the values of a clip's tubelets by time step, row and column."""
    return values.reshape(*data.tubelets, *values.shape[1:])


def in_motion(data: Any, pictures: Shaped[np.ndarray, "T H W V"]) -> Shaped[np.ndarray, "F H W V"]:
    """Repeat a picture of each time step for the frames of its tubelets."""
    return pictures.repeat(data.tubelet, axis=0)


def clip_tile(data: Any) -> tuple[int, int]:
    """Return height and width of a frame's tile: small frames are enlarged by a whole factor."""
    factor = CLIP_TILE / max(data.size)
    factor = max(1, round(factor)) if factor > 1 else factor
    return round(data.size[0] * factor), round(data.size[1] * factor)
