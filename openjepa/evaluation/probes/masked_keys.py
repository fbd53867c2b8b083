"""Regularized masking: some tokens attend to others, and none attends to them (A-JEPA).   B batch  N tokens"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

ATTENTION_PATTERN = re.compile(r"(?:^|\.)blocks\.(\d+)\.attn$")  # the name of a block's attention


@contextmanager
def mask_keys(network: nn.Module, ratio: float, generator: torch.Generator) -> Iterator[None]:
    """Take random tokens out of the keys inside the block, in all layers, others in every forward pass.

    The other tokens do not depend on them, while their own outputs are pooled like all others.

    Source: A-JEPA (Fei et al., 2023, arXiv 2311.15830), with 10 % of the tokens.
    """
    matches = [(ATTENTION_PATTERN.search(name), module) for name, module in network.named_modules()]
    attentions = [(int(match[1]), module) for match, module in matches if match]
    visible: list[torch.Tensor] = []

    def hook(number: int):
        def hide(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            x, mask, *rest = inputs
            if number == 0:
                visible[:] = [draw_visible(len(x), x.shape[1], ratio, generator).to(x.device)]
            own = visible[0][:, None]
            return (x, own if mask is None else own & mask, *rest)

        return hide

    handles = [module.register_forward_pre_hook(hook(number)) for number, module in attentions if ratio]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def draw_visible(batch: int, tokens: int, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Return (B, N) which tokens stay among the keys; a sample always has some."""
    order = torch.rand(batch, tokens, generator=generator).argsort(1)
    return order >= min(round(ratio * tokens), tokens - 1)
