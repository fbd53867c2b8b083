"""Joint embedding: two views of a sample get the same vector (VICReg; Bardes et al., ICLR 2022, arXiv 2105.04906).

B batch  N tokens  D encoder width  E expander width
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Output
from openjepa.methods.base import BaseMethod, MethodConfig
from openjepa.nn.init import Init, initialize, scale_stem
from openjepa.nn.positions import Positions
from openjepa.nn.regularizers import covariance_loss, variance_loss
from openjepa.nn.vit import ViT


@dataclass(frozen=True)
class VICReg(MethodConfig):
    """VICReg: pull two views of an image together; keep features spread out and decorrelated.

    L = invariance · mse(z1, z2) + variance · (v(z1) + v(z2)) / 2 + covariance · (c(z1) + c(z2))

    with z = expander(mean token of encoder(view)); mse, v (hinge on the std) and c (squared covariances) are means over
    features. The two views are random crops, with --data.color-jitter also of different colors.

    Source: Bardes et al., ICLR 2022, arXiv 2105.04906, section 4; the scale of the terms is the official code's.

    Differs: a ViT without class token whose tokens are averaged; the expander is narrower than the paper's 8,192.
    """

    whole_batch: ClassVar[bool] = True  # the loss compares samples, so a batch cannot be split into micro-batches

    dim: int = 384  # width of the encoder: 192 ViT-Ti, 384 ViT-S, 768 ViT-B, 1024 ViT-L, 1280 ViT-H
    depth: int = 12  # number of transformer blocks of the encoder
    num_heads: int = 6  # attention heads of the encoder; must divide dim (usually dim / 64)
    mlp_ratio: float = 4.0  # hidden width of the MLPs, as a multiple of dim
    # sincos: fixed embedding added to the tokens; rope: rotary embedding in every attention layer
    positions: Positions = "sincos"
    registers: int = 0  # extra learned tokens without a position in the encoder
    # weight matrices. paper: std 0.02; scaled: std sqrt(2 / (fan_in + fan_out)), better for narrow encoders, short runs
    init: Init = "paper"
    # patch embedding. paper: std 0.02; scaled: whitened patches give tokens of unit variance, better for small patches
    stem_init: Literal["paper", "scaled"] = "paper"
    predictor_dim: int = 2048  # width of the expander (paper: 8192)
    predictor_depth: int = 3  # number of linear layers of the expander; 3 as in the paper
    predictor_heads: int = 1  # unused: the expander has no attention
    invariance: float = 25.0  # weight of the squared distance between the two views; 25 as in the paper
    variance: float = 25.0  # weight of the hinge that keeps each feature's std above 1; 25 as in the paper
    covariance: float = 1.0  # weight of the squared off-diagonal covariances; 1 as in the paper
    masked: bool = False  # encode only the context tokens of a mask of each view: faster, and a harder task

    def build(self, modality: Modality, seed: int = 0) -> JointEmbedding:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return JointEmbedding(self, modality, torch.Generator().manual_seed(seed))

    def encoder(self, modality: Modality) -> ViT:
        """Build the encoder alone, to load weights into: it has torch's default initialization."""
        sizes = self.dim, self.depth, self.num_heads, self.mlp_ratio, self.positions, self.registers
        return ViT(modality.tokenizer(self.dim), *sizes)


class Expander(nn.Module):
    """An MLP: linear layers with batch norm and ReLU between them."""

    def __init__(self, input_dim: int, dim: int, depth: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim if layer else input_dim, dim) for layer in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm1d(dim, track_running_stats=False) for _ in range(depth - 1))

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        first, *rest = self.layers
        x = first(x)
        for norm, layer in zip(self.norms, rest, strict=True):
            x = layer(F.relu(norm(x)))
        return x


class JointEmbedding(BaseMethod):
    """Networks and loss of a `VICReg` config: one encoder, and an expander that is discarded after training."""

    num_views = 2

    def __init__(self, config: VICReg, modality: Modality, generator: torch.Generator):
        super().__init__()
        self.config, self.modality = config, modality
        self.context_encoder = config.encoder(modality)
        self.predictor = Expander(config.dim, config.predictor_dim, config.predictor_depth)
        initialize(self.context_encoder, generator, config.init)
        initialize(self.predictor, generator, config.init)
        if config.stem_init == "scaled":
            scale_stem(self.context_encoder.patch_embed, modality.token_dim)

    def forward(self, batch: Batch, targets: None) -> Output:
        """Compute the weighted sum of the paper's three terms."""
        tokens = [self.modality.tokens(view) for view in batch.views]
        if self.config.masked:
            view_masks = [batch.masks[view % len(batch.masks)] for view in range(len(tokens))]
            tokens = [x.take(mask.context, mask.context_valid) for x, mask in zip(tokens, view_masks, strict=True)]
        features = [self.context_encoder(x)[0].mean() for x in tokens]
        z1, z2 = (self.predictor(x).float() for x in features)

        invariance = F.mse_loss(z1, z2)
        variance = (variance_loss(z1) + variance_loss(z2)) / 2
        covariance = covariance_loss(z1) + covariance_loss(z2)
        weights = self.config
        loss = weights.invariance * invariance + weights.variance * variance + weights.covariance * covariance
        metrics = {
            "invariance": invariance.detach(),
            "variance": variance.detach(),
            "covariance": covariance.detach(),
        }
        return Output(loss, metrics, features[0].detach())

    def encoders(self) -> dict[str, nn.Module]:
        return {"context": self.context_encoder}
