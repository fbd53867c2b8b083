"""A rectangular region of a picture and the masks that hide it.   B pictures  H W patches  T hidden patches"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool

from openjepa.core.errors import UserError
from openjepa.core.types import Masks


def index_mask(index: torch.Tensor, valid: torch.Tensor | None, count: int) -> Bool[np.ndarray, "N"]:
    """Which of `count` patches are named."""
    found = np.zeros(count, bool)
    found[(index if valid is None else index[valid]).flatten().numpy()] = True
    return found


Box = tuple[float, float, float, float]


def covered_patches(box: Box, grid: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """The patches whose middle is in a box, or the one that the box's middle is in. Mistake if it is no box."""
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise UserError(f"{box} is no box: left, top, right, bottom go from 0 to 1, as --box 0.25 0.25 0.75 0.75")
    y, x = ((np.arange(count) + 0.5) / count for count in grid)
    inside = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))
    if not inside.any():
        inside[int((top + bottom) / 2 * grid[0]), int((left + right) / 2 * grid[1])] = True
    return inside


def hide_region(box: Box, grid: tuple[int, int], count: int) -> Masks:
    """Masks of `count` pictures in which the box is asked for and all else is shown. Mistake if nothing else is left."""
    inside = torch.from_numpy(covered_patches(box, grid)).flatten()
    if inside.all():
        raise UserError(f"the box {box} hides all there is: leave something to be seen")
    context, target = (torch.where(each)[0].expand(count, -1) for each in (~inside, inside))
    return Masks(context, target[:, None])
