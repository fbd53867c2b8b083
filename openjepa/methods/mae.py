"""Masked autoencoder: predict the pixels of masked patches (MAE; He et al., CVPR 2022, arXiv 2111.06377). A baseline.

B batch  N tokens  E width of a raw token  D encoder width
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Output
from openjepa.masking.stack import stack_masks
from openjepa.methods.base import BaseMethod, MethodConfig
from openjepa.nn.init import Init, initialize, scale_stem
from openjepa.nn.positions import Positions
from openjepa.nn.predictor import Predictor
from openjepa.nn.target_transforms import normalize_patches
from openjepa.nn.vit import ViT


class Targets(NamedTuple):
    """The pixels of every patch."""

    x: Float[Tensor, "B N E"]


@dataclass(frozen=True)
class MAE(MethodConfig):
    """MAE: reconstruct the pixels of masked patches from the visible ones.

    L = mean squared error between decoder(encoder(visible patches), positions) and the pixels of the masked patches

    Source: He et al., CVPR 2022, arXiv 2111.06377, section 3. As in the paper, mask 75 % at random:
    --masks.sampler random --masks.mask-ratio 0.75.

    Differs: no class token; the decoder is JEPA's predictor and outputs the masked patches only.
    """

    dim: int = 384  # width of the encoder: 192 ViT-Ti, 384 ViT-S, 768 ViT-B, 1024 ViT-L, 1280 ViT-H
    depth: int = 12  # number of transformer blocks of the encoder
    num_heads: int = 6  # attention heads of the encoder; must divide dim (usually dim / 64)
    mlp_ratio: float = 4.0  # hidden width of the MLPs, as a multiple of dim
    predictor_dim: int = 512  # width of the decoder; 512 as in the paper
    predictor_depth: int = 8  # number of transformer blocks of the decoder; 8 as in the paper, fewer train faster
    predictor_heads: int = 0  # attention heads of the decoder; 0: num_heads
    # sincos: fixed embedding added to the tokens (paper); rope: rotary embedding in every attention layer
    positions: Positions = "sincos"
    registers: int = 0  # extra learned tokens without a position in the encoder; 0 as in the paper
    # weight matrices. paper: std 0.02; scaled: std sqrt(2 / (fan_in + fan_out)), better for narrow encoders, short runs
    init: Init = "paper"
    # patch embedding. paper: std 0.02; scaled: whitened patches give tokens of unit variance, better for small patches
    stem_init: Literal["paper", "scaled"] = "paper"
    normalize_targets: bool = True  # scale each patch to mean 0, variance 1 (the paper's better variant)

    def build(self, modality: Modality, seed: int = 0) -> MaskedAutoencoder:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return MaskedAutoencoder(self, modality, torch.Generator().manual_seed(seed))

    def encoder(self, modality: Modality) -> ViT:
        """Build the encoder alone, to load weights into: it has torch's default initialization."""
        sizes = self.dim, self.depth, self.num_heads, self.mlp_ratio, self.positions, self.registers
        return ViT(modality.tokenizer(self.dim), *sizes)


class MaskedAutoencoder(BaseMethod):
    """Networks and loss of an `MAE` config: an encoder of the visible patches and a decoder (`predictor`), no EMA."""

    def __init__(self, config: MAE, modality: Modality, generator: torch.Generator):
        super().__init__()
        self.config, self.modality = config, modality
        self.context_encoder = config.encoder(modality)
        sizes = config.predictor_dim, config.predictor_depth, config.predictor_heads or config.num_heads
        self.predictor = Predictor(config.dim, modality.token_dim, *sizes, positions=config.positions)
        initialize(self.context_encoder, generator, config.init)
        initialize(self.predictor, generator, config.init)
        if config.stem_init == "scaled":
            scale_stem(self.context_encoder.patch_embed, modality.token_dim)

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
            predicted = self.predictor(context, where=masked.where)
            losses.append(F.mse_loss(predicted.float(), masked.targets))
            mean_target = masked.targets.mean((0, 1, 2)).expand_as(masked.targets)
            mean_losses.append(F.mse_loss(mean_target, masked.targets))
            features.append(context.mean().detach().unflatten(0, (len(batch.index), -1))[:, 0])  # of the first mask
        loss, mean_loss = torch.stack(losses).mean(), torch.stack(mean_losses).mean()
        metrics = {"mean_target_loss": mean_loss, "relative_loss": loss.detach() / mean_loss}
        return Output(loss, metrics, features[0])

    def encoders(self) -> dict[str, nn.Module]:
        return {"context": self.context_encoder}
