"""Masked JEPA with an EMA target encoder: I-JEPA (Assran et al., CVPR 2023, arXiv 2301.08243).

B batch  N tokens  D encoder width  E target width  M target blocks  T tokens per block  K tokens into the EMA encoder
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Keep, Masks, MaskShape, Output
from openjepa.masking.stack import stack_masks
from openjepa.methods.masked import MaskedConfig, MaskedPrediction, Targets, compare, masked_output
from openjepa.nn.losses import LOSSES
from openjepa.nn.target_transforms import mean_target, normalize_patches


@dataclass(frozen=True)
class JEPA(MaskedConfig):
    """I-JEPA: predict the EMA encoder's features of target blocks from a context block.

    L = mean over blocks of d(predictor(encoder(context), positions), LayerNorm(ema_encoder(image))[block])

    Source: Assran et al., CVPR 2023, arXiv 2301.08243, section 3.

    Differs: masks include the last row and column, which the official sampler never draws (see --masks official).
    Additions to the paper, off in the paper: rope, scaled init, and all settings after the loss.
    Targets are normalized per layer, averaged over layers, then transformed.
    """

    # between predictions and targets. smooth_l1: official code; l1: V-JEPA; squared_l2: the paper's text; cosine: 1 -
    # cosine
    loss: Literal["smooth_l1", "l1", "squared_l2", "cosine"] = "smooth_l1"
    # what the EMA encoder sees. whole: the image (paper); targets_only: the target tokens alone, those of all blocks
    # together, which is faster and keeps the context out of the targets; only with one mask per image
    target_input: Literal["whole", "targets_only"] = "whole"
    # compute the feature loss at every n-th target token only, which saves time; 1: at all target tokens. The pixel
    # loss uses all of them
    target_stride: int = 1
    # weight of an auxiliary loss on the normalized pixels of the target patches; 0: off; 1 stabilizes short runs
    pixel_loss_weight: float = 0.0

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the networks fit the data and the targets exist and fit the masks."""
        super().check(data, masks)
        if self.target_stride < 1:
            raise UserError(f"--method.target-stride must be >= 1, got {self.target_stride}")
        if self.target_stride > 1 and not self.pixel_loss_weight:
            raise UserError(
                f"--method.target-stride {self.target_stride} leaves positions without a target unless there is a "
                "pixel loss: try --method.pixel-loss-weight 1 or --method.target-stride 1"
            )
        if self.target_input == "targets_only" and masks.masks_per_sample > 1:
            raise UserError(
                "--method.target-input targets_only requires a single mask per sample: "
                "try --masks.masks-per-sample 1, or --method.target-input whole"
            )

    def build(self, modality: Modality, seed: int = 0) -> MaskedJEPA:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return MaskedJEPA(self, modality, torch.Generator().manual_seed(seed))

    def output_dim(self, modality: Modality) -> int:
        """Return the width of a prediction: features, then (with a pixel loss) pixels."""
        return self.target_dim + (modality.token_dim if self.pixel_loss_weight else 0)

    def target_tokens(self, data: Modality, masks: list[MaskShape]) -> int:
        """Return how many tokens the EMA encoder sees."""
        if self.target_input == "whole":
            return data.layout.count
        _, blocks, block_tokens = masks[0]
        return blocks * len(range(0, block_tokens, self.target_stride))


class MaskedJEPA(MaskedPrediction):
    """Networks and loss of a `JEPA` config: context encoder, predictor, and the context encoder's EMA as the target."""

    def __init__(self, config: JEPA, modality: Modality, generator: torch.Generator):
        super().__init__(config, modality, generator)
        self.config, self.loss = config, LOSSES[config.loss]

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Encode the image with the EMA encoder and normalize the features; append pixels if there is a pixel loss."""
        keep = self.target_tokens(batch.masks) if self.config.target_input == "targets_only" else None
        targets, pixels = self.encode_targets(batch.views[0], keep), self.modality.tokens(batch.views[0]).x
        x = targets.x
        if keep is not None:  # back to one row per token of the image; padding repeats tokens, so it changes none
            x = x.new_zeros(*pixels.shape[:2], x.shape[-1]).scatter(1, keep.index[:, 0, :, None].expand_as(x), x)
        if self.config.pixel_loss_weight:
            x = torch.cat([x, normalize_patches(pixels)], -1)
        return targets._replace(x=x)

    def forward(self, batch: Batch, targets: Targets) -> Output:
        """Compute the loss of predicting every target block from its context (paper, section 3)."""
        tokens = self.modality.tokens(batch.views[0])
        losses = []
        for masked in stack_masks(tokens, targets.x, batch.masks):
            (context,) = self.context_encoder(tokens, masked.keep)
            predicted = self.predictor(context, masked.where, valid=masked.valid, mask_sets=masked.mask_sets)
            mean = self.mean_target(masked.targets, masked.valid)
            losses.append(compare(self.loss_of, predicted, masked, mean))
        return masked_output(losses, targets)

    def target_tokens(self, masks: tuple[Masks, ...]) -> Keep:
        """Return the tokens whose features are predicted, as one group: every `target_stride`-th target token.

        A token of several blocks is seen once: where it repeats, it counts as padding.
        """
        stride, valid = self.config.target_stride, masks[0].target_valid
        index = masks[0].target[..., ::stride].flatten(1)
        own = None if valid is None else valid[..., ::stride].flatten(1)
        if masks[0].target.shape[1] > 1:
            own = torch.ones_like(index, dtype=torch.bool) if own is None else own
            own = own & ~is_repeated(index, own)
        return Keep(index[:, None], None if own is None else own[:, None])

    def loss_of(
        self, predicted: Float[Tensor, "B M T E"], target: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None
    ) -> Float[Tensor, ""]:
        """Compute the loss on features plus, with a pixel loss, the weighted loss on pixels."""
        features, pixels = self.split_features_pixels(predicted)
        target_features, target_pixels = self.split_features_pixels(target)
        loss = self.loss(features, target_features, self.subsample(valid))
        if self.config.pixel_loss_weight:
            loss = loss + self.config.pixel_loss_weight * self.loss(pixels, target_pixels, valid)
        return loss

    def split_features_pixels(
        self, x: Float[Tensor, "B M T E"]
    ) -> tuple[Float[Tensor, "B M t D"], Float[Tensor, "B M T P"]]:
        """Split into features, at every `target_stride`-th token, and pixels (width 0 without a pixel loss)."""
        width = self.modality.token_dim if self.config.pixel_loss_weight else 0
        features, pixels = x.split([x.shape[-1] - width, width], -1)
        return features[..., :: self.config.target_stride, :], pixels

    def subsample(self, valid: Bool[Tensor, "B M T"] | None) -> Bool[Tensor, "B M t"] | None:
        """Keep every `target_stride`-th target token, as in the feature loss."""
        return None if valid is None else valid[..., :: self.config.target_stride]

    def mean_target(self, targets: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None) -> Float[Tensor, "E"]:
        """Return the mean of the targets that are predicted."""
        return mean_target(targets[:, :, :: self.config.target_stride], self.subsample(valid))


def is_repeated(index: Int[Tensor, "B K"], valid: Bool[Tensor, "B K"]) -> Bool[Tensor, "B K"]:
    """Return whether a valid entry earlier in the row has the same value."""
    same = (index[:, :, None] == index[:, None, :]) & valid[:, None, :]
    return same.tril(-1).any(-1)
