"""Mask a random fraction of the tokens.   B batch  N tokens  P coordinates"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout, Masks, MaskShape
from openjepa.masking.strategy import MaskStrategy, require_fraction


@dataclass(frozen=True)
class Random(MaskStrategy):
    """A random fraction of the tokens is masked, the rest is the context (the I-JEPA paper's Table 6).

    All masked tokens are targets, or a random fraction of them, which shortens the predictor's sequences. Takes any
    layout; of a ragged set, the fractions are of each sample's own tokens.
    """

    mask_ratio: float = 0.6  # fraction of tokens that are masked
    # fraction of the masked tokens that are targets, chosen at random; the rest is neither seen nor predicted, which is
    # faster
    target_fraction: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        require_fraction(self, "mask_ratio", "target_fraction")

    def draw_mask(
        self,
        layout: Layout,
        pos: Float[Tensor, "B N P"] | None,
        valid: Bool[Tensor, "B N"] | None,
        rng: CounterRNG,
        progress: float,
    ) -> Masks:
        if valid is not None:
            return self.draw_ragged(valid, rng)
        context_count, target_count = self.counts(layout.count)
        shuffled = rng.uniform("order", layout.count).argsort(dim=1)
        context = shuffled[:, :context_count].sort(dim=1).values
        target = shuffled[:, context_count : context_count + target_count].sort(dim=1).values
        return Masks(context, target[:, None])

    def draw_ragged(self, valid: Bool[Tensor, "B N"], rng: CounterRNG) -> Masks:
        """Draw one mask of every sample, of its valid tokens; masks are padded to the longest of the batch."""
        order = torch.where(valid, rng.uniform("order", valid.shape[1]), 2.0).argsort(dim=1)
        counts = [self.counts(count) for count in valid.sum(1).tolist()]
        contexts, targets = (torch.tensor(each) for each in zip(*counts, strict=True))
        context, context_valid = pad(order, torch.zeros_like(contexts), contexts)
        target, target_valid = pad(order, contexts, targets)
        return Masks(context, target[:, None], context_valid, target_valid[:, None])

    def counts(self, count: int) -> tuple[int, int]:
        """Return the numbers of context and target tokens of a sample with `count` tokens.

        Raises UserError if all of them or none would be masked.
        """
        masked = int(count * self.mask_ratio)
        if not 0 < masked < count:
            raise UserError(
                f"a sample of {count} tokens is too small: {masked} of {count} tokens would be masked; "
                "try a smaller --data.patch or a larger --data.size, or another --masks.mask-ratio"
            )
        return count - masked, max(1, round(masked * self.target_fraction))

    def shapes(self, layout: Layout) -> list[MaskShape]:
        context_count, target_count = self.counts(layout.count)
        return [(context_count, 1, target_count)] if layout.shape else []


def pad(
    order: Int[Tensor, "B N"], first: Int[Tensor, "B"], counts: Int[Tensor, "B"]
) -> tuple[Int[Tensor, "B K"], Bool[Tensor, "B K"]]:
    """Return `counts` entries of each row from `first` on, padded to the longest, and which of them are not padding."""
    step = torch.arange(int(counts.max()))
    valid = step < counts[:, None]
    return order.gather(1, (first[:, None] + step).clamp(max=order.shape[1] - 1)), valid
