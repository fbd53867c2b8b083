"""Joint embedding: two views of a sample get the same vector (VICReg; Bardes et al., ICLR 2022, arXiv 2105.04906).

B batch  N tokens  D encoder width  E expander width
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.distributed import gather_ranks
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Keep, MaskShape, Output, StepFlops
from openjepa.methods.base import BaseMethod, ViTMethodConfig
from openjepa.nn.flops import vit_flops
from openjepa.nn.init import initialize
from openjepa.nn.regularizers import covariance_loss, variance_loss


@dataclass(frozen=True)
class ExpanderConfig:
    """Sizes of the expander, an MLP."""

    dim: int = 2048  # width (paper: 8192)
    depth: int = 3  # number of linear layers; 3 as in the paper

    def flops(self, input_dim: int) -> int:
        """Return the forward FLOPs of one vector and of its share of the output's covariance matrix."""
        return 2 * self.dim * (input_dim + self.depth * self.dim)


@dataclass(frozen=True)
class VICReg(ViTMethodConfig):
    """VICReg: pull two views of an image together; keep features spread out and decorrelated.

    L = invariance · mse(z1, z2) + variance · (v(z1) + v(z2)) / 2 + covariance · (c(z1) + c(z2))

    with z = expander(mean token of encoder(view)); mse, v (hinge on the std) and c (squared covariances) are means over
    features. The two views are random crops, with --data.color-jitter also of different colors.

    Source: Bardes et al., ICLR 2022, arXiv 2105.04906, section 4; the scale of the terms is the official code's.

    Differs: a ViT without class token whose tokens are averaged; the expander is narrower than the paper's 8,192.
    """

    whole_batch: ClassVar[bool] = True  # the loss compares samples, so a batch cannot be split into micro-batches

    expander: ExpanderConfig = field(default_factory=ExpanderConfig)
    invariance: float = 25.0  # weight of the squared distance between the two views; 25 as in the paper
    variance: float = 25.0  # weight of the hinge that keeps each feature's std above 1; 25 as in the paper
    covariance: float = 1.0  # weight of the squared off-diagonal covariances; 1 as in the paper
    masked: bool = False  # encode only the context tokens of a mask of each view: faster, and a harder task

    @property
    def needs_masks(self) -> bool:
        return self.masked

    def build(self, modality: Modality, seed: int = 0) -> JointEmbedding:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return JointEmbedding(self, modality, torch.Generator().manual_seed(seed))

    def describe(self) -> str:
        """Describe the networks in one line."""
        return f"{super().describe()}; expander {self.expander.dim}×{self.expander.depth}"

    def cost(self, data: Modality, masks: Iterable[MaskShape]) -> StepFlops:
        """Return the FLOPs of one sample, whose two views are encoded."""
        tokens = next(iter(masks))[0] if self.masked else data.layout.count
        encoder, expander = vit_flops(self.encoder, data, tokens), self.expander.flops(self.encoder.dim)
        return StepFlops(target=0, context=2 * 3 * encoder, predictor=2 * 3 * expander)


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
        self.context_encoder = config.build_encoder(modality)
        self.predictor = Expander(config.encoder.dim, config.expander.dim, config.expander.depth)
        config.encoder.initialize(self.context_encoder, generator, modality.token_dim)
        initialize(self.predictor, generator, config.encoder.init)

    def forward(self, batch: Batch, targets: None) -> Output:
        """Compute the weighted sum of the paper's three terms, over the whole batch also on several ranks."""
        features = [self.encode(batch, number) for number in range(len(batch.views))]
        z1, z2 = (self.predictor(gather_ranks(x)).float() for x in features)

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

    def encode(self, batch: Batch, number: int) -> Float[Tensor, "B D"]:
        """Return the mean feature of a view, of its context tokens alone if `masked`; each view has its own mask."""
        keep = None
        if self.config.masked:
            mask = batch.masks[number % len(batch.masks)]
            keep = Keep(mask.context[:, None], None if mask.context_valid is None else mask.context_valid[:, None])
        (tokens,) = self.context_encoder(self.modality.tokens(batch.views[number]), keep)
        return tokens.mean()

    def encoders(self) -> dict[str, nn.Module]:
        return {"context": self.context_encoder}
