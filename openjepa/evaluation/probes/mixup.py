"""Mixup and CutMix."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor

from openjepa.evaluation.probes.finetune_recipes import FinetuneRecipe


def mix_batch(
    view: Real[Tensor, "B C *view"], truth: Float[Tensor, "B K"], recipe: FinetuneRecipe, generator: torch.Generator
) -> tuple[Real[Tensor, "B C *view"], Float[Tensor, "B K"]]:
    """Mix each sample with another by mixup or CutMix, chosen with equal probability; labels mix in the same ratio.

    CutMix cuts a box out of all frames of a clip, and a stretch of time out of a sound.
    """
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
        box = draw_box(tuple(view.shape[2:])[-2:], 1 - share, generator)
        view = view.clone()
        view[..., *box] = other[..., *box]
        share = 1 - view[0, 0, ..., *box].numel() / view[0, 0].numel()
    return view, share * truth + (1 - share) * truth.flip(0)


def draw_box(size: tuple[int, ...], fraction: float, generator: torch.Generator) -> tuple[slice, ...]:
    """Draw a box that covers a fraction of the last two axes, rows and columns, or of the only one, which is time."""
    sides = [round(side * fraction ** (1 / len(size))) for side in size]
    starts = [
        int(torch.randint(whole - side + 1, (1,), generator=generator)) for whole, side in zip(size, sides, strict=True)
    ]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def sample_beta(strength: float, generator: torch.Generator) -> float:
    """Draw from Beta(strength, strength)."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    return float(np.random.default_rng(seed).beta(strength, strength))
