"""Initialize the weights of encoders and predictors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Init = Literal["paper", "scaled"]


@torch.no_grad()
def initialize(module: nn.Module, generator: torch.Generator, how: Init = "paper") -> None:
    """Weights from a normal of deviation 0.02 truncated at ±2, biases 0, norms 1 and 0: as in effect in the released runs.

    "scaled": matrices of deviation √(2 / (inputs + outputs)), which at width 192 is two to four times that; not a stem's,
    which has an option of its own. The released code also divides residual projections by sqrt(2·layer), then overwrites
    them; so do we not.
    """
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            std = (
                (2 / sum(parameter.shape)) ** 0.5
                if how == "scaled" and parameter.ndim == 2 and "patch_embed" not in name
                else 0.02
            )
            nn.init.trunc_normal_(parameter, std=std, a=-2.0, b=2.0, generator=generator)
        else:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)


@torch.no_grad()
def scale_stem(stem: nn.Module, width: int) -> None:
    """Scales each matrix of the stem to deviation 1/√(inputs): a patch of whitened input becomes a token of unit size.

    At the released 0.02 a patch of 48 numbers makes a token of size 0.14, beside a position of size 0.7, and small runs
    spend their time on predicting positions; see docs/log.md. Between several layers size is lost: the last makes up for
    what is measured on noise, tokens of `width` numbers.
    """
    matrices = [parameter for parameter in stem.parameters() if parameter.ndim > 1]
    for parameter in matrices:
        parameter.mul_(parameter[0].numel() ** -0.5 / 0.02)
    if len(matrices) > 1:
        noise = torch.randn(1, 256, width, generator=torch.Generator().manual_seed(0))
        matrices[-1].div_(stem(noise).square().mean().sqrt())
