"""Joint embedding: two views of a sample get the same vector (VICReg; Bardes et al., ICLR 2022, arXiv 2105.04906).

B batch  N tokens  D width  E expanded width
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Masks, Output
from openjepa.nn.init import Init, initialize, scale_stem
from openjepa.nn.positions import Positions
from openjepa.nn.regularizers import covariance_loss, variance_loss
from openjepa.nn.vit import ViT


@dataclass(frozen=True)
class VICReg:
    """The networks and the objective. As released: distances are means over features, the variance term the mean of both views'.

    What views have in common is decided by the data: crops alone, or crops whose colours change, too (`Image.colour`).
    Differs: a transformer without class token, its tokens averaged; the expander is narrower than the paper's 8,192.
    """

    whole_batch: ClassVar[bool] = True  # the loss is not a mean over samples, so a batch cannot be taken in parts

    dim: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float = 4.0
    positions: Positions = "sincos"  # as in JEPA
    registers: int = 0  # as in JEPA
    init: Init = "paper"  # as in JEPA
    stem_init: Literal["paper", "scaled"] = "paper"  # as in JEPA
    predictor_dim: int = 2048  # of the expander
    predictor_depth: int = 3  # layers of the expander
    predictor_heads: int = 1  # it has none
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    masked: bool = False  # each view shows no more than the context of a mask: faster, and harder

    def build(self, modality: Modality, seed: int = 0) -> JointEmbedding:
        """The method with freshly initialised weights; a function of the seed."""
        return JointEmbedding(self, modality, torch.Generator().manual_seed(seed))

    def encoder(self, modality: Modality) -> ViT:
        """The encoder alone, its weights as torch makes them: to be loaded."""
        shape = self.dim, self.depth, self.num_heads, self.mlp_ratio, self.positions, self.registers
        return ViT(modality.tokenizer(self.dim), *shape)


class Expander(nn.Module):
    """Linear layers with batch norm and ReLU between them."""

    def __init__(self, input_dim: int, dim: int, depth: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim if place else input_dim, dim) for place in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm1d(dim, track_running_stats=False) for _ in range(depth - 1))

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        first, *rest = self.layers
        x = first(x)
        for norm, layer in zip(self.norms, rest, strict=True):
            x = layer(F.relu(norm(x)))
        return x


class JointEmbedding(nn.Module):
    """One encoder, and an expander that is thrown away after training."""

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

    def targets(self, batch: Batch, masks: tuple[Masks, ...]) -> None:
        """There are none: each view is the other's."""

    def forward(self, batch: Batch, masks: tuple[Masks, ...], targets: None) -> Output:
        """The paper's three terms, weighted."""
        tokens = [self.modality.tokens(view) for view in batch.views]
        if self.config.masked:
            shown = [masks[place % len(masks)] for place in range(len(tokens))]
            tokens = [each.take(mask.context, mask.context_valid) for each, mask in zip(tokens, shown, strict=True)]
        features = [self.context_encoder(each)[0].mean() for each in tokens]
        one, other = (self.predictor(each).float() for each in features)

        apart = F.mse_loss(one, other)
        narrow = (variance_loss(one) + variance_loss(other)) / 2
        alike = covariance_loss(one) + covariance_loss(other)
        loss = self.config.invariance * apart + self.config.variance * narrow + self.config.covariance * alike
        metrics = {"invariance": apart.detach(), "variance": narrow.detach(), "covariance": alike.detach()}
        return Output(loss, metrics, features[0].detach())

    def after_step(self, momentum: float, taken: Tensor | None = None) -> None:
        """Nothing follows."""

    def encoder(self, which: str = "target") -> ViT:
        """The one encoder, by either name."""
        return self.context_encoder
