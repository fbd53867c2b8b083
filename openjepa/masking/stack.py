"""Stack the masks of a batch so that all contexts go through the networks in one pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.types import Masks, Tokens, gather


class MaskedBatch(NamedTuple):
    """What goes through the networks at once, R contexts: what they show, where more is asked for, and what is there."""

    context: Tokens
    where: Float[Tensor, "R M T P"]
    targets: Float[Tensor, "R M T E"]
    valid: Bool[Tensor, "R M T"] | None


def stack_masks(tokens: Tokens, there: Float[Tensor, "B N E"], masks: tuple[Masks, ...]) -> list[MaskedBatch]:
    """The samples under their masks: all masks in one pass where their shapes are equal, R = B · masks, else one by one.

    One pass of many contexts costs less than many of few; without padding the mean loss is the same.
    """
    alike = {tuple(part if part is None else part.shape for part in mask) for mask in masks}
    groups = [masks] if len(alike) == 1 else [(mask,) for mask in masks]
    return [stack_equal_masks(tokens, there, group) for group in groups]


def stack_equal_masks(tokens: Tokens, there: Float[Tensor, "B N E"], masks: tuple[Masks, ...]) -> MaskedBatch:
    """Masks of equal shapes in one pass, a sample's contexts one after the other."""
    context = torch.stack([mask.context for mask in masks], dim=1)
    target = torch.stack([mask.target for mask in masks], dim=1)
    shown = [mask.context_valid for mask in masks if mask.context_valid is not None]
    wanted = [mask.target_valid for mask in masks if mask.target_valid is not None]

    def apart(values: Tensor) -> Tensor:
        return values.unflatten(1, context.shape[1:]).flatten(0, 1)

    x, pos, valid = tokens.take(context.flatten(1), torch.cat(shown, dim=1) if shown else None)
    return MaskedBatch(
        Tokens(apart(x), apart(pos), None if valid is None else apart(valid)),
        gather(tokens.pos, target).flatten(0, 1),
        gather(there, target).flatten(0, 1),
        torch.stack(wanted, dim=1).flatten(0, 1) if wanted else None,
    )
