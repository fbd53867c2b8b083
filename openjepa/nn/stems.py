"""Local tokenizers: map the raw values of a patch or window to a token.   N tokens  E raw width  D width"""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.protocols import Tokenizer
from openjepa.core.types import Tokens


class LocalTokenizer(Tokenizer):
    """Map each token by itself: a subclass maps the values, positions and padding stay as they are."""

    def forward(self, tokens: Tokens) -> Tokens:
        return tokens._replace(x=self.embed(tokens.x))

    def embed(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N D"]:
        """Map the raw values of tokens."""
        raise NotImplementedError


class PatchEmbed(LocalTokenizer):
    """Map a patch's pixels to a token with a linear layer.

    The weight has the shape of a convolution with stride = kernel size, applied to patches already cut out.
    """

    def __init__(self, channels: int, patch: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, patch)

    def embed(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N D"]:
        return nn.functional.linear(x, self.proj.weight.flatten(1), self.proj.bias)


class TubeletEmbed(LocalTokenizer):
    """Map a tubelet's pixels, of some frames in the same patch, to a token with a linear layer.

    The weight has the shape of a convolution with stride = kernel size, applied to tubelets already cut out.
    """

    def __init__(self, channels: int, tubelet: int, patch: int, dim: int):
        super().__init__()
        size = (tubelet, patch, patch)
        self.proj = nn.Conv3d(channels, dim, size, size)

    def embed(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N D"]:
        return nn.functional.linear(x, self.proj.weight.flatten(1), self.proj.bias)


class ConvStem(LocalTokenizer):
    """Map a patch's pixels to a token: 3×3 convolutions of stride 2 down to 1×1, then a linear layer.

    The number of channels doubles with each convolution.
    Source: early convolutions (Xiao et al., NeurIPS 2021, arXiv 2106.14881). Differs: each patch is convolved alone,
    padded with zeros, so that no masked patch leaks through its neighbors; GELU; no batch normalization.
    """

    def __init__(self, channels: int, patch: int, dim: int):
        super().__init__()
        self.shape = channels, patch, patch
        self.layers = nn.ModuleList(nn.Conv2d(*pair, 3, 2, 1) for pair in pairwise(self.widths(channels, patch, dim)))
        self.proj = nn.Linear(dim, dim)

    def embed(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N D"]:
        y = x.reshape(-1, *self.shape)
        for layer in self.layers:
            y = nn.functional.gelu(layer(y))
        return self.proj(y.view(*x.shape[:2], -1))

    @staticmethod
    def widths(channels: int, patch: int, dim: int) -> list[int]:
        """Return the number of channels before the first and after every convolution."""
        count = max(1, (patch - 1).bit_length())
        return [channels, *(max(1, dim >> (count - 1 - layer)) for layer in range(count))]

    @classmethod
    def flops(cls, channels: int, patch: int, dim: int) -> int:
        """Return the forward FLOPs for one patch."""
        side, total = patch, 2 * dim * dim
        for before, after in pairwise(cls.widths(channels, patch, dim)):
            side = (side + 1) // 2
            total += 2 * 9 * before * after * side**2
        return total


class WindowEmbed(LocalTokenizer):
    """Map the samples of a window to a token by a linear layer."""

    def __init__(self, width: int, dim: int):
        super().__init__()
        self.proj = nn.Linear(width, dim)

    def embed(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N D"]:
        return self.proj(x)
