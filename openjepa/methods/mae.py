"""Masked autoencoder: predict the pixels of masked patches (MAE; He et al., CVPR 2022, arXiv 2111.06377). A baseline.

B batch  N tokens  E width of a raw token  D encoder width
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, MaskShape, Output, StepFlops
from openjepa.masking.stack import stack_masks
from openjepa.methods.base import BaseMethod, ViTMethodConfig
from openjepa.nn.flops import predictor_flops, vit_flops
from openjepa.nn.losses import mean_squared_error
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.target_transforms import mean_target, normalize_patches


class Targets(NamedTuple):
    """The pixels of every patch."""

    x: Float[Tensor, "B N E"]


@dataclass(frozen=True)
class MAE(ViTMethodConfig):
    """MAE: reconstruct the pixels of masked patches from the visible ones.

    L = mean squared error between decoder(encoder(visible patches), positions) and the pixels of the masked patches

    Source: He et al., CVPR 2022, arXiv 2111.06377, section 3. As in the paper, mask 75 % at random:
    --masks random --masks.mask-ratio 0.75.

    Differs: no class token; the decoder is JEPA's predictor and outputs the masked patches only.
    """

    # the decoder; fewer blocks train faster
    predictor: PredictorConfig = field(default_factory=lambda: PredictorConfig(dim=512, depth=8))
    normalize_targets: bool = True  # scale each patch to mean 0, variance 1 (the paper's better variant)

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the widths have room for heads and positions."""
        super().check(data, masks)
        self.predictor.check(data.layout.coordinates, "--method.predictor", self.encoder)
        self.predictor.check_mask_tokens("--method.predictor", masks)

    def build(self, modality: Modality, seed: int = 0) -> MaskedAutoencoder:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return MaskedAutoencoder(self, modality, torch.Generator().manual_seed(seed))

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
            predictor=sum(3 * predictor_flops(sizes, dim, data.token_dim, mask) for mask in masks),
        )


class MaskedAutoencoder(BaseMethod):
    """Networks and loss of an `MAE` config: an encoder of the visible patches and a decoder (`predictor`), no EMA."""

    def __init__(self, config: MAE, modality: Modality, generator: torch.Generator):
        super().__init__()
        self.config, self.modality = config, modality
        self.context_encoder = config.build_encoder(modality)
        self.predictor = config.predictor.build(config.encoder, modality.token_dim)
        config.encoder.initialize(self.context_encoder, generator, modality.token_dim)
        config.predictor.initialize(self.predictor, generator)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Return the pixels of every patch, normalized per patch unless `normalize_targets` is off."""
        x = self.modality.tokens(batch.views[0]).x.float()
        return Targets(normalize_patches(x) if self.config.normalize_targets else x)

    def forward(self, batch: Batch, targets: Targets) -> Output:
        """Compute the mean squared error on the masked patches (paper, section 3)."""
        tokens = self.modality.tokens(batch.views[0])
        losses, mean_losses, features = [], [], []
        for masked in stack_masks(tokens, targets.x, batch.masks):
            (context,) = self.context_encoder(tokens, masked.keep)
            predicted = self.predictor(context, masked.where, valid=masked.valid, mask_sets=masked.mask_sets)
            losses.append(mean_squared_error(predicted.float(), masked.targets, masked.valid))
            mean = mean_target(masked.targets, masked.valid).expand_as(masked.targets)
            mean_losses.append(mean_squared_error(mean, masked.targets, masked.valid))
            features.append(context.mean().detach().unflatten(0, (len(batch.index), -1))[:, 0])  # of the first mask
        loss, mean_loss = torch.stack(losses).mean(), torch.stack(mean_losses).mean()
        metrics = {"mean_target_loss": mean_loss, "relative_loss": loss.detach() / mean_loss}
        return Output(loss, metrics, features[0])

    def encoders(self) -> dict[str, nn.Module]:
        return {"context": self.context_encoder}
