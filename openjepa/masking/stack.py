"""Stack the masks of a batch so that all contexts pass through the networks at once.

B batch  G masks  R contexts: pairs of a sample and a mask  M target blocks  T tokens per block  E width
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.types import Keep, Masks, MaskShape, Tokens, gather


class MaskedBatch(NamedTuple):
    """Context tokens, target positions and target features of R = B · G (sample, mask) pairs."""

    keep: Keep  # context tokens, a group for each mask
    where: Float[Tensor, "R M T P"]  # target positions
    targets: Float[Tensor, "R M T E"]
    valid: Bool[Tensor, "R M T"] | None  # False on padded targets
    mask_sets: tuple[int, ...] = (0,)  # which masks of a sample these are, in the order of its contexts


def stack_masks(tokens: Tokens, features: Float[Tensor, "B N E"], masks: tuple[Masks, ...]) -> list[MaskedBatch]:
    """Apply masks to a batch: one MaskedBatch (R = B · masks) if all shapes are equal, else one per mask.

    `features` are the target features of all tokens. One pass of many contexts costs less than many passes of few;
    without padding the mean loss is the same.
    """
    shapes = {tuple(part if part is None else part.shape for part in mask) for mask in masks}
    every = tuple(range(len(masks)))
    groups = [every] if len(shapes) == 1 else [(index,) for index in every]
    return [stack_equal_masks(tokens, features, masks, group) for group in groups]


def stack_equal_masks(
    tokens: Tokens, features: Float[Tensor, "B N E"], masks: tuple[Masks, ...], mask_sets: tuple[int, ...]
) -> MaskedBatch:
    """Apply those masks of `mask_sets`, of equal shapes, to a batch; the contexts of a sample follow one another."""
    masks = tuple(masks[number] for number in mask_sets)
    context = torch.stack([mask.context for mask in masks], dim=1)
    target = torch.stack([mask.target for mask in masks], dim=1)
    context_valid = [mask.context_valid for mask in masks if mask.context_valid is not None]
    target_valid = [mask.target_valid for mask in masks if mask.target_valid is not None]
    valid = torch.stack(target_valid, dim=1).flatten(0, 1) if target_valid else None
    if tokens.valid is not None:
        own = tokens.valid.gather(1, target.flatten(1)).view(target.shape).flatten(0, 1)
        valid = own if valid is None else own & valid
    return MaskedBatch(
        Keep(context, torch.stack(context_valid, dim=1) if context_valid else None),
        gather(tokens.pos, target).flatten(0, 1),
        gather(features, target).flatten(0, 1),
        valid,
        mask_sets,
    )


def mask_shapes(masks: tuple[Masks, ...]) -> list[MaskShape]:
    """Return the shape of each mask of a step."""
    return [(mask.context.shape[1], mask.target.shape[1], mask.target.shape[2]) for mask in masks]
