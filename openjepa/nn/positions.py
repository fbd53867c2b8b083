"""Positional embeddings computed from coordinates.   B batch  N tokens  P coordinates  D width"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError

Positions = Literal["sincos", "rope"]  # added to tokens, or rotating queries and keys

Side = int | torch.SymInt  # rows or columns of a grid; symbolic while a program is traced


class RotaryAngles(NamedTuple):
    """Cosines and sines of the angles by which RoPE rotates queries and keys; the same for every head."""

    cos: Float[Tensor, "B 1 N D"]
    sin: Float[Tensor, "B 1 N D"]  # negated in the first half of D


def grid_positions(rows: Side, columns: Side, trained_grid: tuple[int, int] | None = None) -> Float[Tensor, "N 2"]:
    """Return (x, y) = (column, row) of each cell in raster order.

    `trained_grid` is the grid that a network was trained on: the coordinates of another grid are rescaled to the same
    extent, with cell centers mapped to cell centers, so that no table has to be resized. Works for symbolic grid sizes
    while a program is traced.
    """
    trained_rows, trained_columns = trained_grid or (rows, columns)
    y = (torch.arange(rows) + 0.5) * (trained_rows / rows) - 0.5  # pyright: ignore
    x = (torch.arange(columns) + 0.5) * (trained_columns / columns) - 0.5  # pyright: ignore
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).flatten(0, 1)


def sincos(pos: Float[Tensor, "*B P"], dim: int) -> Float[Tensor, "*B D"]:
    """Return fixed sine-cosine embeddings: D/P values for each coordinate, sines first.

    Frequencies are 10000^(-k/K), K = D/(2P), as in the official code of I-JEPA and MAE, where the first half of a
    token's embedding encodes its column and the second its row. Raises UserError if D is not a multiple of 2P.
    """
    coordinates = pos.shape[-1]
    if dim % (2 * coordinates):
        raise UserError(
            f"positions with {coordinates} coordinates require a width divisible by {2 * coordinates}, got {dim}: "
            f"try {dim // (2 * coordinates) * 2 * coordinates}"
        )
    count = dim // (2 * coordinates)
    k = torch.arange(count, dtype=torch.float64, device="cpu")
    frequency = (10000.0 ** (-k / count)).to(pos.device, torch.float32)
    angle = pos.float()[..., None] * frequency  # *B P K
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def rope_angles(pos: Float[Tensor, "B N P"], head_dim: int) -> RotaryAngles:
    """Return the rotary angles of each token: head_dim/2P for each coordinate.

    Frequencies are 100^(-k/K), K = head_dim/2P. Source: RoFormer (Su et al., arXiv 2104.09864), one axis after the
    other, with the base of Heo et al. (arXiv 2403.13298). Raises UserError if `head_dim` is not a multiple of 2P.
    """
    count = rope_frequency_count(head_dim, pos.shape[-1])
    frequency = 100.0 ** (-torch.arange(count, device=pos.device) / count)
    angle = (pos.float()[..., None] * frequency).flatten(-2)[:, None]  # B 1 N K
    cos, sin = angle.cos(), angle.sin()
    return RotaryAngles(torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1))


def rope_frequency_count(head_dim: int, coordinates: int) -> int:
    """Return the number of rotary frequencies per coordinate: head_dim/2P.

    Raises UserError if `head_dim` is not a multiple of 2P.
    """
    if head_dim % (2 * coordinates):
        raise UserError(
            f"RoPE with {coordinates} coordinates requires a head width (dim / num_heads) divisible by "
            f"{2 * coordinates}, got {head_dim}: try {max(head_dim // (2 * coordinates), 1) * 2 * coordinates}"
        )
    return head_dim // (2 * coordinates)


def apply_rope(x: Float[Tensor, "*B H N D"], rope: RotaryAngles) -> Float[Tensor, "*B H N D"]:
    """Rotate pairs of features, one from each half of a head's width, by their angles."""
    cos, sin = rope.cos.to(x.dtype), rope.sin.to(x.dtype)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
