"""Positional embeddings computed from coordinates.   B batch  N tokens  P coordinates  D width"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError

Positions = Literal["sincos", "rope", "rope_vjepa2"]  # added to tokens, or rotating queries and keys

Side = int | torch.SymInt  # cells along an axis of a grid; symbolic while a program is traced


class RotaryAngles(NamedTuple):
    """Cosines and sines of the angles by which RoPE rotates queries and keys; the same for every head."""

    cos: Float[Tensor, "B 1 N D"]
    sin: Float[Tensor, "B 1 N D"]  # negated in the first feature of each pair
    pairs_neighbors: bool = False  # features 0 and 1, 2 and 3 …; else one of each half of D


def grid_positions(*shape: Side, trained_grid: tuple[int, ...] | None = None) -> Float[Tensor, "N P"]:
    """Return the coordinates of each cell of a grid with any number of axes, in raster order.

    The last axis comes first: (x, y) = (column, row) for `grid_positions(rows, columns)`, and (x, y, t) for
    `grid_positions(frames, rows, columns)`. `trained_grid` is the grid that a network was trained on: the coordinates
    of another grid are rescaled to the same extent, with cell centers mapped to cell centers, so that no table has to
    be resized. Works for symbolic grid sizes while a program is traced.
    """
    axes = [
        (torch.arange(size) + 0.5) * (trained / size) - 0.5  # pyright: ignore
        for size, trained in zip(shape, trained_grid or shape, strict=True)
    ]
    return torch.stack(torch.meshgrid(axes, indexing="ij")[::-1], dim=-1).flatten(0, -2)


def sincos(pos: Float[Tensor, "*B P"], dim: int) -> Float[Tensor, "*B D"]:
    """Return fixed sine-cosine embeddings: K sines and K cosines for each coordinate, K = D/(2P) rounded down.

    Frequencies are 10000^(-k/K), as in the official code of I-JEPA and MAE, where the first half of a token's embedding
    encodes its column and the second its row. If 2P does not divide D, the last D - 2PK values are 0: 4 of 1024 for
    ViT-L on video. Neighboring tokens should be about 1 apart: a modality in other units scales its positions.
    Raises UserError if D is less than 2P.
    """
    count = sincos_frequency_count(dim, pos.shape[-1])
    k = torch.arange(count, dtype=torch.float64, device="cpu")
    frequency = (10000.0 ** (-k / count)).to(pos.device, torch.float32)
    angle = pos.float()[..., None] * frequency  # *B P K
    table = torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)
    rest = dim - table.shape[-1]
    return F.pad(table, (0, rest)) if rest else table


def rope_angles(pos: Float[Tensor, "B N P"], head_dim: int) -> RotaryAngles:
    """Return the rotary angles of each token: K for each coordinate, K = head_dim/2P rounded down.

    Frequencies are 100^(-k/K). Source: RoFormer (Su et al., arXiv 2104.09864), one axis after the other, with the base
    of Heo et al. (arXiv 2403.13298). If 2P does not divide `head_dim`, the last pairs of features are not rotated.
    Raises UserError if `head_dim` is odd or less than 2P.
    """
    count = rope_frequency_count(head_dim, pos.shape[-1])
    frequency = 100.0 ** (-torch.arange(count, device=pos.device) / count)
    angle = (pos.float()[..., None] * frequency).flatten(-2)[:, None]  # B 1 N K
    rest = head_dim // 2 - angle.shape[-1]
    angle = F.pad(angle, (0, rest)) if rest else angle
    cos, sin = angle.cos(), angle.sin()
    return RotaryAngles(torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1))


def vjepa2_rope_angles(pos: Float[Tensor, "B N P"], head_dim: int) -> RotaryAngles:
    """Return the rotary angles of V-JEPA 2: K for each coordinate, K = head_dim/2P rounded down.

    Each coordinate, the last one (time) first, has 2K neighboring features; features beyond 2KP are not rotated.
    Frequencies are 10000^(-k/K). As in the released networks, feature j of a coordinate turns by angle j mod K: the two
    features of a pair turn by different angles, so this is a rotation only approximately.
    Source: V-JEPA 2 (arXiv 2506.09985), section 2.1, and its networks in the transformers library.
    Raises UserError if `head_dim` is odd or less than 2P.
    """
    count = rope_frequency_count(head_dim, pos.shape[-1])
    frequency = 10000.0 ** (-torch.arange(count, device=pos.device) / count)
    angle = pos.float().flip(-1)[..., None] * frequency  # B N P K
    angle = torch.cat([angle, angle], -1).flatten(-2)[:, None]  # B 1 N 2KP
    angle = F.pad(angle, (0, head_dim - angle.shape[-1]))
    sign = torch.arange(head_dim, device=pos.device) % 2 * 2 - 1
    return RotaryAngles(angle.cos(), angle.sin() * sign, pairs_neighbors=True)


def rotary_angles(positions: Positions, pos: Float[Tensor, "B N P"], head_dim: int) -> RotaryAngles | None:
    """Return the angles by which tokens at `pos` are rotated in attention; None for added positions."""
    if positions == "sincos":
        return None
    return rope_angles(pos, head_dim) if positions == "rope" else vjepa2_rope_angles(pos, head_dim)


def sincos_frequency_count(dim: int, coordinates: int) -> int:
    """Return the number of frequencies per coordinate: D/(2P) rounded down. Raises UserError if D is less than 2P."""
    if dim < 2 * coordinates:
        raise UserError(
            f"positions with {coordinates} coordinates require a width of at least {2 * coordinates}, got {dim}: "
            f"try {2 * coordinates}"
        )
    return dim // (2 * coordinates)


def rope_frequency_count(head_dim: int, coordinates: int) -> int:
    """Return the number of rotary frequencies per coordinate: head_dim/2P rounded down.

    Raises UserError if `head_dim` is odd or less than 2P.
    """
    if head_dim % 2 or head_dim < 2 * coordinates:
        raise UserError(
            f"RoPE with {coordinates} coordinates requires an even head width (dim / num_heads) of at least "
            f"{2 * coordinates}, got {head_dim}: try {max(head_dim // 2 * 2, 2 * coordinates)}"
        )
    return head_dim // (2 * coordinates)


def apply_rope(x: Float[Tensor, "*B H N D"], rope: RotaryAngles) -> Float[Tensor, "*B H N D"]:
    """Rotate pairs of features by their angles."""
    cos, sin = rope.cos.to(x.dtype), rope.sin.to(x.dtype)
    partner = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2) if rope.pairs_neighbors else x.roll(x.shape[-1] // 2, -1)
    return torch.addcmul(x * cos, partner, sin)
