"""Initialize the weights of encoders and predictors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from openjepa.core.types import Tokens

Init = Literal["paper", "scaled"]


@torch.no_grad()
def initialize(module: nn.Module, generator: torch.Generator, init: Init = "paper") -> None:
    """Initialize weights from a normal distribution truncated at ±2; norms to weight 1, biases to 0.

    "paper": standard deviation 0.02, as in effect in the official runs.
    "scaled": standard deviation √(2 / (inputs + outputs)) for matrices, two to four times as much at width 192. Stems
    keep 0.02; `scale_stem` is their own option.
    Differs: the official code rescales residual projections by 1/√(2·layer) and then overwrites them; we skip both.
    """
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            scaled = init == "scaled" and parameter.ndim == 2 and "patch_embed" not in name
            std = (2 / sum(parameter.shape)) ** 0.5 if scaled else 0.02
            nn.init.trunc_normal_(parameter, std=std, a=-2.0, b=2.0, generator=generator)
        else:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)


@torch.no_grad()
def scale_stem(stem: nn.Module, width: int) -> None:
    """Rescale the stem so that a patch of whitened values becomes a token of unit size.

    Each matrix gets the standard deviation 1/√inputs instead of 0.02. With 0.02, a patch of 48 values becomes a token
    of size 0.14, next to a positional embedding of size 0.7, and small runs spend their time on predicting positions;
    see docs/log.md. Stems of several layers lose size between them, so their last matrix is also divided by the output
    size measured on noise tokens of `width` values.
    """
    matrices = [parameter for parameter in stem.parameters() if parameter.ndim > 1]
    for parameter in matrices:
        parameter.mul_(parameter[0].numel() ** -0.5 / 0.02)
    if len(matrices) > 1:
        noise = torch.randn(1, 256, width, generator=torch.Generator().manual_seed(0))
        matrices[-1].div_(stem(Tokens(noise, noise.new_zeros(1, 256, 0))).x.square().mean().sqrt())
