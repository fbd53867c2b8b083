"""A convolutional pyramid: features of an image at several resolutions.   B images  C channels  H W pixels or cells"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.protocols import Encoder
from openjepa.core.types import Keep, Tokens
from openjepa.nn.sparse_convnet import ConvBlock, assemble_patches, rows_columns


@dataclass(frozen=True)
class PyramidConfig:
    """Sizes of a pyramid: each level halves the resolution."""

    widths: tuple[int, ...] = (32, 64, 128)  # channels of each level, the finest first
    depths: tuple[int, ...] = (1, 1, 2)  # blocks of each level
    kernel: int = 5  # side of the depthwise convolutions

    @property
    def dim(self) -> int:
        """Return the width of the features of a patch: those of the coarsest level."""
        return self.widths[-1]

    @property
    def depth(self) -> int:
        return self.depths[-1]

    def check(self, patch: int, flag: str) -> None:
        """Raise UserError unless a cell of the coarsest level is a patch."""
        levels = len(self.widths)
        if len(self.depths) != levels or not levels or min(*self.depths, *self.widths) < 1 or self.kernel % 2 == 0:
            raise UserError(
                f"{flag}.widths and {flag}.depths need a number above 0 for each level, {flag}.kernel is odd"
            )
        if patch != 1 << levels:
            raise UserError(
                f"{levels} levels end at patches of {1 << levels} pixels, got {patch}: try --data.patch {1 << levels}"
            )

    def build(self, modality: Any) -> Pyramid:
        """Build the network with torch's default initialization, to initialize or to load weights into."""
        return Pyramid(self, modality.channels, modality.patch, modality.grid)

    def describe(self) -> str:
        """Return the sizes as text."""
        return f"pyramid of widths {' '.join(map(str, self.widths))}, blocks {' '.join(map(str, self.depths))}"


class Pyramid(Encoder):
    """Strided convolutions and ConvNeXt blocks; the features of a patch are those of the coarsest level.

    Source: MC-JEPA (Bardes et al., 2023, arXiv 2307.12698), section 3.1. Differs: small, and without downsampling by 4.
    """

    any_size = False  # rows and columns of a grid do not follow from the number of its patches

    def __init__(self, config: PyramidConfig, channels: int, patch: int, grid: tuple[int, int]):
        super().__init__()
        self.dim, self.depth, self.patch, self.grid = config.dim, config.depth, patch, grid
        before = (channels, *config.widths[:-1])
        self.down = nn.ModuleList(
            nn.Conv2d(*pair, 3, stride=2, padding=1) for pair in zip(before, config.widths, strict=True)
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(ConvBlock(width, config.kernel) for _ in range(depth))
            for width, depth in zip(config.widths, config.depths, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for width in config.widths)

    def levels(self, images: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """Return the normalized features of each level, (B, C, H, W), the finest first."""
        return [outputs[-1].movedim(-1, 1) for outputs in self.run_stages(images)]

    def run_stages(self, x: Float[Tensor, "B C H W"]) -> list[list[Tensor]]:
        """Return the normalized outputs of the blocks of each level, channels last."""
        results = []
        for down, stage, norm in zip(self.down, self.stages, self.norms, strict=True):
            y = down(x).movedim(1, -1)
            outputs = []
            for block in stage:  # type: ignore[union-attr]
                y = block(y)
                outputs.append(norm(y))
            results.append(outputs)
            x = y.movedim(-1, 1)
        return results

    def forward(self, tokens: Tokens, keep: Keep | None = None, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        """Encode whole images; layers are the blocks of the coarsest level. Raises UserError for parts of images."""
        if keep is not None:
            raise UserError("a pyramid encodes whole images, not the visible patches alone: try --method cnn-jepa")
        images = assemble_patches(tokens.x, rows_columns(tokens.x.shape[1], self.grid), self.patch)
        outputs = self.run_stages(images)[-1]
        return tuple(tokens._replace(x=outputs[layer].flatten(1, 2)) for layer in layers)
