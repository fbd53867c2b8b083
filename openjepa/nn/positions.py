"""Positions as coordinates.   B batch  N tokens  P coordinates  D width"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError

Positions = Literal["sincos", "rope"]  # added to tokens, or turned into queries and keys

Side = int | torch.SymInt  # of a grid; a symbol while a program is traced


class RotaryAngles(NamedTuple):
    """The angles by which attention turns its queries and keys; the same for every head."""

    cos: Float[Tensor, "B 1 N D"]
    sin: Float[Tensor, "B 1 N D"]  # negative in its first half


def grid_positions(rows: Side, columns: Side, like: tuple[int, int] | None = None) -> Float[Tensor, "N 2"]:
    """(x, y) = (column, row) of each cell in raster order; of any grid while a program is traced.

    `like` is the grid that a network was trained on: coordinates of another grid are rescaled to the same extent,
    cell centres onto cell centres, so that no table need be resized.
    """
    trained_rows, trained_columns = like or (rows, columns)
    y = (torch.arange(rows) + 0.5) * (trained_rows / rows) - 0.5  # pyright: ignore
    x = (torch.arange(columns) + 0.5) * (trained_columns / columns) - 0.5  # pyright: ignore
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).flatten(0, 1)


def sincos(pos: Float[Tensor, "*B P"], dim: int) -> Float[Tensor, "*B D"]:
    """Fixed sine-cosine features: for each coordinate D/P numbers, sines first.

    Frequencies are 10000^(-k/K), K = D/(2P), as in the released I-JEPA and MAE, where the first half of a token's
    table is its column and the second its row. Raises Mistake if D is not a multiple of 2P.
    """
    coordinates = pos.shape[-1]
    if dim % (2 * coordinates):
        raise UserError(
            f"width {dim} is not a multiple of {2 * coordinates}: try {dim // (2 * coordinates) * 2 * coordinates}"
        )
    count = dim // (2 * coordinates)
    k = torch.arange(count, dtype=torch.float64, device="cpu")
    frequency = (10000.0 ** (-k / count)).to(pos.device, torch.float32)
    angle = pos.float()[..., None] * frequency  # *B P K
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def rope_angles(pos: Float[Tensor, "B N P"], width: int) -> RotaryAngles:
    """Angles for heads of `width`: for each coordinate width/2P of them, frequencies 100^(-k/K) a unit.

    Source: RoFormer (Su et al., arXiv 2104.09864), one axis after the other, with the base of Heo et al. (arXiv
    2403.13298). Raises Mistake if the width is not a multiple of 2P.
    """
    count = rope_frequency_count(width, pos.shape[-1])
    frequency = 100.0 ** (-torch.arange(count, device=pos.device) / count)
    angle = (pos.float()[..., None] * frequency).flatten(-2)[:, None]  # B 1 N K
    cos, sin = angle.cos(), angle.sin()
    return RotaryAngles(torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1))


def rope_frequency_count(width: int, coordinates: int) -> int:
    """How many angles a head of `width` has for each coordinate. Mistake if they do not come out even."""
    if width % (2 * coordinates):
        raise UserError(
            f"heads of width {width} cannot turn by {coordinates} coordinates: "
            f"try a width of {max(width // (2 * coordinates), 1) * 2 * coordinates} a head"
        )
    return width // (2 * coordinates)


def apply_rope(x: Float[Tensor, "*B H N D"], turn: RotaryAngles) -> Float[Tensor, "*B H N D"]:
    """Each pair (a feature of a head's first half, the same of its second) turned by its angle."""
    cos, sin = turn.cos.to(x.dtype), turn.sin.to(x.dtype)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
