"""Initialize the weights of encoders and predictors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore
from torch.nn.modules.conv import _ConvNd  # pyright: ignore

from openjepa.core.types import Tokens

Init = Literal["paper", "scaled"]

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, _NormBase)  # _NormBase: batch and instance norms of any dimension


@torch.no_grad()
def initialize(module: nn.Module, generator: torch.Generator, init: Init = "paper") -> None:
    """Initialize weights from a normal distribution truncated at ±2; norms to weight 1, biases to 0.

    "paper": standard deviation 0.02, as in effect in the official runs.
    "scaled": standard deviation √(2 / (inputs + outputs)) for matrices, two to four times as much at width 192. Stems
    (`patch_embed`), learned tokens and embeddings keep 0.02; `scale_stem` is the stems' own option.

    The type of a layer decides, not its name. Other vectors and scalars, such as the gains of LayerScale and PReLU,
    keep the values that their constructor gave them. The row of an embedding's `padding_idx` is 0.
    Differs: the official code rescales residual projections by 1/√(2·layer) and then overwrites them; we skip both.
    """
    for name, owner, parameter in owned_parameters(module):
        if isinstance(owner, NORMS):
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        elif parameter.ndim > 1:
            embedding = isinstance(owner, nn.Embedding | nn.EmbeddingBag)
            scaled = init == "scaled" and parameter.ndim == 2 and not embedding and "patch_embed" not in name
            std = (2 / sum(parameter.shape)) ** 0.5 if scaled else 0.02
            nn.init.trunc_normal_(parameter, std=std, a=-2.0, b=2.0, generator=generator)
            if isinstance(owner, nn.Embedding | nn.EmbeddingBag) and owner.padding_idx is not None:
                parameter[owner.padding_idx] = 0.0
        elif "bias" in name.rpartition(".")[2]:
            parameter.zero_()


@torch.no_grad()
def initialize_convolutions(module: nn.Module, generator: torch.Generator) -> None:
    """Initialize a convolutional network: convolutions keep the variance of their inputs, other layers are "scaled"."""
    initialize(module, generator, "scaled")
    for layer in module.modules():
        if isinstance(layer, _ConvNd):
            nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5, generator=generator)


def owned_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Yield the name of each parameter, the layer that it belongs to, and the parameter, in torch's order."""
    for name, parameter in module.named_parameters():
        yield name, module.get_submodule(name.rpartition(".")[0]), parameter


@torch.no_grad()
def scale_stem(stem: nn.Module, width: int) -> None:
    """Rescale the stem so that a patch of whitened values becomes a token of unit size.

    The matrix of each linear layer and convolution gets the standard deviation 1/√inputs instead of 0.02. With 0.02, a
    patch of 48 values becomes a token of size 0.14, next to a positional embedding of size 0.7, and small runs spend
    their time on predicting positions; see studies/log.md. Stems of several layers lose size between them, so their
    last matrix is also divided by the output size measured on noise tokens of `width` values. The noise passes through
    a copy of the stem, so that it does not enter the running statistics of a BatchNorm.
    """
    layers = (owner for _, owner, parameter in owned_parameters(stem) if parameter.ndim > 1)
    matrices = [layer.weight for layer in layers if isinstance(layer, nn.Linear | _ConvNd)]
    for parameter in matrices:
        parameter.mul_(parameter[0].numel() ** -0.5 / 0.02)
    if len(matrices) > 1:
        noise = torch.randn(1, 256, width, generator=torch.Generator().manual_seed(0))
        matrices[-1].div_(copy.deepcopy(stem)(Tokens(noise, noise.new_zeros(1, 256, 0))).x.square().mean().sqrt())
