"""Predict fixed targets of hidden patches from visible ones: what MAE and methods with hand-made targets share.

B batch  N tokens  E width of a target  D encoder width
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, MaskShape, Output, StepFlops, Tokens
from openjepa.masking.stack import MaskedBatch, stack_masks
from openjepa.methods.base import BaseMethod, ViTMethodConfig
from openjepa.nn.flops import predictor_flops, vit_flops
from openjepa.nn.losses import mean_squared_error
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.target_transforms import mean_target


class Targets(NamedTuple):
    """What is predicted of every patch."""

    x: Float[Tensor, "B N E"]


@dataclass(frozen=True)
class ReconstructionConfig(ViTMethodConfig):
    """Settings of the networks."""

    # the decoder; fewer blocks train faster
    predictor: PredictorConfig = field(default_factory=lambda: PredictorConfig(dim=512, depth=8))

    def target_dim(self, data: Modality) -> int:
        """Return E, the number of values that are predicted of a patch."""
        return data.token_dim

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the widths have room for heads and positions."""
        super().check(data, masks)
        self.predictor.check(data.layout.coordinates, "--method.predictor", self.encoder)
        self.predictor.check_mask_tokens("--method.predictor", masks)

    def describe(self) -> str:
        """Describe the networks in one line."""
        return f"{super().describe()}; predictor {self.predictor.describe()}"

    def cost(self, data: Modality, masks: Iterable[MaskShape]) -> StepFlops:
        """Return the FLOPs of one sample under these masks; the targets cost nothing."""
        masks = list(masks)
        dim, sizes = self.encoder.dim, self.predictor
        return StepFlops(
            target=0,
            context=sum(3 * vit_flops(self.encoder, data, context) for context, _, _ in masks),
            predictor=sum(3 * predictor_flops(sizes, dim, self.target_dim(data), mask) for mask in masks),
        )


class ReconstructionMethod(BaseMethod):
    """An encoder of the visible patches and a decoder (`predictor`), no EMA; a subclass computes the targets."""

    def __init__(self, config: ReconstructionConfig, modality: Modality, generator: torch.Generator):
        super().__init__()
        self.modality = modality
        self.context_encoder = config.build_encoder(modality)
        self.predictor = config.predictor.build(config.encoder, config.target_dim(modality))
        config.encoder.initialize(self.context_encoder, generator, modality.token_dim)
        config.predictor.initialize(self.predictor, generator)

    def forward(self, batch: Batch, targets: Targets) -> Output:
        """Compute the mean squared error on the hidden patches."""
        tokens = self.modality.tokens(batch.views[0])
        losses, mean_losses, features = [], [], []
        for masked in stack_masks(tokens, targets.x, batch.masks):
            context = self.encode(tokens, masked, batch)
            predicted = self.predictor(context, masked.where, valid=masked.valid, mask_sets=masked.mask_sets)
            losses.append(mean_squared_error(predicted.float(), masked.targets, masked.valid))
            mean = mean_target(masked.targets, masked.valid).expand_as(masked.targets)
            mean_losses.append(mean_squared_error(mean, masked.targets, masked.valid))
            features.append(context.mean().detach().unflatten(0, (len(batch.index), -1))[:, 0])  # of the first mask
        loss, mean_loss = torch.stack(losses).mean(), torch.stack(mean_losses).mean()
        metrics = {"mean_target_loss": mean_loss, "relative_loss": loss.detach() / mean_loss}
        return Output(loss, metrics, features[0])

    def encode(self, tokens: Tokens, masked: MaskedBatch, batch: Batch) -> Tokens:
        """Encode the visible patches of every mask."""
        return self.context_encoder(tokens, masked.keep)[0]

    def encoders(self) -> dict[str, nn.Module]:
        return {"context": self.context_encoder}
