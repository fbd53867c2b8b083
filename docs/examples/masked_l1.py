"""Predict the raw values of hidden tokens with an L1 loss: a method without a target encoder."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Output
from openjepa.masking.stack import stack_masks
from openjepa.methods.base import BaseMethod, ViTMethodConfig
from openjepa.nn.init import initialize
from openjepa.nn.predictor import PredictorConfig


@dataclass(frozen=True)
class MaskedL1(ViTMethodConfig):
    """Settings: the sizes of the encoder and of the predictor. They are flags: --method.encoder.dim 64."""

    predictor: PredictorConfig = field(default_factory=lambda: PredictorConfig(dim=32, depth=2, init="scaled"))

    def build(self, modality: Modality, seed: int = 0) -> "MaskedL1Networks":
        return MaskedL1Networks(self, modality, torch.Generator().manual_seed(seed))


class MaskedL1Networks(BaseMethod):
    """L = mean | predictor(encoder(visible tokens), positions) - hidden tokens |"""

    def __init__(self, config: MaskedL1, modality: Modality, generator: torch.Generator):
        super().__init__()
        self.modality = modality
        self.context_encoder = config.build_encoder(modality)
        self.predictor = config.predictor.build(config.encoder, modality.token_dim)
        config.encoder.initialize(self.context_encoder, generator, modality.token_dim)
        initialize(self.predictor, generator, config.predictor.init)

    def targets(self, batch: Batch) -> Tensor:
        """Return the raw tokens of the whole view, once for all masks."""
        return self.modality.tokens(batch.views[0]).x.float()

    def forward(self, batch: Batch, targets: Tensor) -> Output:
        """Compute the loss, a baseline that it must beat, and a vector per sample to watch for collapse."""
        tokens = self.modality.tokens(batch.views[0])
        losses, baselines = [], []
        for masked in stack_masks(tokens, targets, batch.masks):
            (context,) = self.context_encoder(tokens, masked.keep)
            predicted = self.predictor(context, where=masked.where, valid=masked.valid)
            losses.append(F.l1_loss(predicted.float(), masked.targets))
            baselines.append(F.l1_loss(masked.targets.median().expand_as(masked.targets), masked.targets))
        loss, baseline = torch.stack(losses).mean(), torch.stack(baselines).mean()
        return Output(loss, {"relative_loss": loss.detach() / baseline}, context.mean().detach())

    def encoders(self) -> dict[str, nn.Module]:
        return {"context": self.context_encoder}
