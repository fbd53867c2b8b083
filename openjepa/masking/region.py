"""A rectangular region of an image, and masks that hide it.   B images  H W patches  T masked patches"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool

from openjepa.core.errors import UserError
from openjepa.core.options import Box
from openjepa.core.types import Masks


def index_mask(index: torch.Tensor, valid: torch.Tensor | None, count: int) -> Bool[np.ndarray, "N"]:
    """Convert patch indices to a boolean mask over `count` patches.

    Indices where `valid` is False are ignored.
    """
    mask = np.zeros(count, bool)
    mask[(index if valid is None else index[valid]).flatten().numpy()] = True
    return mask


def covered_patches(box: Box, grid: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """Return the patches whose center is in a box; if none is, the patch that contains the box's center.

    Raises UserError if the box is empty or outside the image.
    """
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise UserError(
            f"invalid box {box}: LEFT TOP RIGHT BOTTOM are fractions of the image, from 0 to 1, "
            "left < right, top < bottom, e.g. --box 0.25 0.25 0.75 0.75"
        )
    y, x = ((np.arange(count) + 0.5) / count for count in grid)
    inside = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))
    if not inside.any():
        inside[int((top + bottom) / 2 * grid[0]), int((left + right) / 2 * grid[1])] = True
    return inside


def hide_region(box: Box, grid: tuple[int, ...], count: int) -> Masks:
    """Return masks for `count` samples: patches in the box are the target, all others the context.

    The last two axes of the grid are rows and columns; in a clip the box is hidden at all times. Raises UserError if
    the box covers every patch.
    """
    inside = torch.from_numpy(np.broadcast_to(covered_patches(box, (grid[-2], grid[-1])), grid).copy()).flatten()
    if inside.all():
        raise UserError(f"the box {box} covers the whole image: choose a smaller box that leaves some context")
    context, target = (torch.where(cells)[0].expand(count, -1) for cells in (~inside, inside))
    return Masks(context, target[:, None])
