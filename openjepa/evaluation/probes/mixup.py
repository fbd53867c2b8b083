"""Mixup and CutMix."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor

from openjepa.evaluation.probes.finetune_recipes import FinetuneRecipe


def mix_batch(
    view: Real[Tensor, "B C H W"], truth: Float[Tensor, "B K"], recipe: FinetuneRecipe, generator: torch.Generator
) -> tuple[Real[Tensor, "B C H W"], Float[Tensor, "B K"]]:
    """Mix each sample with another by mixup or CutMix, chosen with equal probability; labels mix in the same ratio."""
    choices = [kind for kind, strength in (("mixup", recipe.mixup), ("cutmix", recipe.cutmix)) if strength]
    if not choices:
        return view, truth
    kind = choices[int(torch.randint(len(choices), (1,), generator=generator))]
    strength = recipe.mixup if kind == "mixup" else recipe.cutmix
    share = sample_beta(strength, generator)
    other = view.flip(0)
    if kind == "mixup":
        mixed = share * view.float() + (1 - share) * other.float()
        view = mixed.round().to(torch.uint8) if view.dtype == torch.uint8 else mixed
    else:
        height, width = view.shape[2:]
        h, w = round(height * math.sqrt(1 - share)), round(width * math.sqrt(1 - share))
        top, left = (int(torch.randint(room + 1, (1,), generator=generator)) for room in (height - h, width - w))
        view = view.clone()
        view[:, :, top : top + h, left : left + w] = other[:, :, top : top + h, left : left + w]
        share = 1 - h * w / (height * width)
    return view, share * truth + (1 - share) * truth.flip(0)


def sample_beta(strength: float, generator: torch.Generator) -> float:
    """Draw from Beta(strength, strength)."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    return float(np.random.default_rng(seed).beta(strength, strength))
