"""A convolutional encoder of images from which hidden patches never leak.

B images  N tokens  H W pixels or cells  C channels  D width
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.protocols import Encoder
from openjepa.core.types import Keep, Tokens, gather


@dataclass(frozen=True)
class SparseConvNetConfig:
    """Sizes of a convolutional encoder: a stage for each halving of the resolution, down to one cell for each patch."""

    dim: int = 256  # width of the last stage; each earlier stage has half the width of the next
    depths: tuple[int, ...] = (0, 1, 4)  # blocks of each stage; their number follows from --data.patch: 3 for patch 4
    kernel: int = 5  # side of the depthwise convolutions

    @property
    def depth(self) -> int:
        """Return the number of blocks of the last stage, whose outputs are features of patches."""
        return self.depths[-1]

    @property
    def widths(self) -> list[int]:
        """Return the width of each stage."""
        return [self.dim >> shift for shift in reversed(range(len(self.depths)))]

    def check(self, patch: int, flag: str) -> None:
        """Raise UserError unless the stages end at the resolution of the patches."""
        stages = max(1, patch.bit_length())
        if patch != 1 << (stages - 1) or len(self.depths) != stages:
            depths = " ".join(map(str, [*[0, 1, 2, 2, 2][: stages - 1], 4]))
            raise UserError(
                f"{flag}.depths must have one value more than halvings lead from pixels to patches of {patch} pixels, "
                f"a power of 2, got {len(self.depths)} values: try {flag}.depths {depths}"
            )
        if (
            self.dim % (1 << (stages - 1))
            or self.kernel % 2 == 0
            or self.kernel < 1
            or min(self.depths) < 0
            or not self.depth
        ):
            raise UserError(
                f"{flag}.dim must be a multiple of {1 << (stages - 1)}, {flag}.kernel odd, and no depth below 0, "
                f"got {self.dim}, {self.kernel} and {' '.join(map(str, self.depths))}"
            )

    def build(self, modality: Any) -> SparseConvNet:
        """Build the network with torch's default initialization, to initialize or to load weights into."""
        return SparseConvNet(self, modality.channels, modality.patch, modality.grid)

    def describe(self) -> str:
        """Return the sizes as text."""
        return f"convolutions of width {self.dim}, blocks {' '.join(map(str, self.depths))}, kernel {self.kernel}"

    def flops(self, channels: int, cells: int) -> int:
        """Return the forward FLOPs for an image of so many patches: of pointwise, depthwise and strided layers."""
        total, before = 0, channels
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            area = cells * 4 ** (len(self.depths) - 1 - stage)
            entry = 9 * channels if stage == 0 else 4 * before
            total += 2 * area * width * (entry + depth * (8 * width + self.kernel**2))
            before = width
        return total


class ConvBlock(nn.Module):
    """A depthwise convolution and an MLP of each cell, with a residual connection; hidden cells stay 0.

    Source: ConvNeXt (arXiv 2201.03545).
    """

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "B H W C"], cells: Int[Tensor, "K"] | None = None) -> Float[Tensor, "B H W C"]:
        """Return new values of the cells with these numbers, over all images; the others are 0. None: every cell."""
        y = self.conv(x.movedim(-1, 1)).movedim(1, -1)
        if cells is None:
            return x + self.mlp(y)
        rows = x.flatten(0, 2)[cells]
        rows = rows + self.mlp(y.flatten(0, 2)[cells])
        return rows.new_zeros(x[..., 0].numel(), x.shape[-1]).index_copy(0, cells, rows).view_as(x)

    def mlp(self, x: Float[Tensor, "*K C"]) -> Float[Tensor, "*K C"]:
        """Map each cell by itself."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class SparseConvNet(Encoder):
    """Residual convolutions that treat hidden patches as 0 in every layer, as sparse convolutions do.

    Source: CNN-JEPA (Kalapos and Gyires-Tóth, 2024, arXiv 2408.07514), section 3.
    Differs: ConvNeXt blocks with layer norm in place of a ResNet with batch norm, whose statistics mix images.
    """

    any_size = False  # rows and columns of a grid do not follow from the number of its patches

    def __init__(self, config: SparseConvNetConfig, channels: int, patch: int, grid: tuple[int, int]):
        super().__init__()
        self.dim, self.depth, self.patch, self.grid = config.dim, config.depth, patch, grid
        widths = config.widths
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.downsample = nn.ModuleList(nn.Conv2d(before, after, 2, 2) for before, after in pairwise(widths))
        self.stages = nn.ModuleList(
            nn.ModuleList(ConvBlock(width, config.kernel) for _ in range(depth))
            for width, depth in zip(widths, config.depths, strict=True)
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)

    def forward(self, tokens: Tokens, keep: Keep | None = None, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        """Encode whole images, or G groups of their patches as B·G samples; return features of each patch.

        Layers are the blocks of the last stage. Hidden patches are 0 in all layers.
        """
        visible = tokens if keep is None else tokens.hide_all_but(keep)
        grid = rows_columns(tokens.x.shape[1], self.grid)
        mask = None if visible.valid is None else visible.valid.to(visible.x.dtype).unflatten(1, grid)[:, None]
        outputs = self.run_stages(assemble_patches(visible.x, grid, self.patch), mask)
        depths = [range(self.depth)[layer] for layer in layers]
        features = [Tokens(self.norm(outputs[depth]).flatten(1, 2), visible.pos, tokens.valid) for depth in depths]
        if keep is None:
            return tuple(features)
        groups = keep.flatten_groups()
        index, valid = groups.index[:, 0], None if groups.valid is None else groups.valid[:, 0]
        return tuple(Tokens(gather(each.x, index), gather(each.pos, index), valid) for each in features)

    def run_stages(self, x: Float[Tensor, "B C H W"], mask: Float[Tensor, "B 1 h w"] | None) -> list[Tensor]:
        """Return the outputs of the blocks of the last stage, channels last; `mask` is 0 at hidden patches."""
        outputs: list[Tensor] = []
        cells = None
        for number, stage in enumerate(self.stages):
            x = self.stem(x) if number == 0 else self.downsample[number - 1](x)
            if mask is not None:
                fine = F.interpolate(mask, x.shape[-2:])
                x, cells = x * fine, fine.flatten().nonzero()[:, 0]
            x, outputs = x.movedim(1, -1), []
            for block in stage:  # type: ignore[union-attr]
                x = block(x, cells)
                outputs.append(x)
            x = x.movedim(-1, 1)
        return outputs


def assemble_patches(x: Float[Tensor, "B N E"], grid: tuple[int, int], patch: int) -> Float[Tensor, "B C H W"]:
    """Put the patches of images back in a grid of rows and columns."""
    pixels = x.unflatten(1, grid).unflatten(-1, (-1, patch, patch))
    return pixels.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def rows_columns(count: int, trained: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of so many patches: of the trained grid, or of one with the same aspect ratio."""
    if count == trained[0] * trained[1]:
        return trained
    scale = (count / (trained[0] * trained[1])) ** 0.5
    return round(trained[0] * scale), round(trained[1] * scale)


@dataclass(frozen=True)
class ConvPredictorConfig:
    """Sizes of a convolutional predictor."""

    depth: int = 3  # blocks of a depthwise convolution and an MLP
    kernel: int = 5  # side of the depthwise convolutions

    def build(self, dim: int, grid: tuple[int, int]) -> ConvPredictor:
        return ConvPredictor(dim, self.depth, self.kernel, grid)


class ConvPredictor(nn.Module):
    """Fill the hidden cells of a map of features with a mask token, and convolve to predict the features there."""

    def __init__(self, dim: int, depth: int, kernel: int, grid: tuple[int, int]):
        super().__init__()
        self.grid = grid
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(ConvBlock(dim, kernel) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.proj = nn.Linear(dim, dim)

    def forward(self, context: Tokens, where: Float[Tensor, "B M T P"]) -> Float[Tensor, "B M T D"]:
        """Predict the features at every target position `where` from the context."""
        rows, columns = self.grid
        batch, blocks, count, _ = where.shape
        index = self.cells(context.pos)
        x = self.mask_token.to(context.x.dtype).expand(batch, rows * columns, -1)
        values = context.x
        if context.valid is not None:  # padding writes the value of its first token, which is there already
            values = torch.where(context.valid[..., None], values, gather(values, index.new_zeros(index.shape)))
            index = torch.where(context.valid, index, index[:, :1])
        x = x.scatter(1, index[..., None].expand_as(values), values).unflatten(1, (rows, columns))
        for block in self.blocks:
            x = block(x)
        hidden = gather(x.flatten(1, 2), self.cells(where.flatten(1, 2)))
        return self.proj(self.norm(hidden)).view(batch, blocks, count, -1)

    def cells(self, pos: Float[Tensor, "B K 2"]) -> Tensor:
        """Return the cell at each position (x, y)."""
        return (pos[..., 1].round() * self.grid[1] + pos[..., 0].round()).long()
