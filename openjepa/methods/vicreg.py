"""Joint embedding: two views of a sample get the same vector (VICReg; Bardes et al., ICLR 2022, arXiv 2105.04906).

B batch  D encoder width  E expander width
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from openjepa.core.distributed import gather_ranks
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Output
from openjepa.methods.views import JointConfig, JointViews, ViewsConfig
from openjepa.nn.regularizers import vicreg_terms


@dataclass(frozen=True)
class VICRegConfig(JointConfig):
    """Weights of the three terms of VICReg; a subclass has the encoder."""

    invariance: float = 25.0  # weight of the squared distance between the two views; 25 as in the paper
    variance: float = 25.0  # weight of the hinge that keeps each feature's std above 1; 25 as in the paper
    covariance: float = 1.0  # weight of the squared off-diagonal covariances; 1 as in the paper

    def build(self, modality: Modality, seed: int = 0) -> JointEmbedding:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return JointEmbedding(self, modality, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class VICReg(ViewsConfig, VICRegConfig):
    """VICReg: pull two views of an image together; keep features spread out and decorrelated.

    L = invariance · mse(z1, z2) + variance · (v(z1) + v(z2)) / 2 + covariance · (c(z1) + c(z2))

    with z = expander(mean token of encoder(view)); mse, v (hinge on the std) and c (squared covariances) are means over
    features. The two views are random crops, with --data.color-jitter also of different colors.

    Source: Bardes et al., ICLR 2022, arXiv 2105.04906, section 4; the scale of the terms is the official code's.

    Differs: a ViT without class token whose tokens are averaged; the expander is narrower than the paper's 8,192.
    """


class JointEmbedding(JointViews):
    """Networks and loss of VICReg, whatever the encoder."""

    def __init__(self, config: VICRegConfig, modality: Modality, generator: torch.Generator):
        super().__init__(config, modality, generator)
        self.config = config

    def forward(self, batch: Batch, targets: None) -> Output:
        """Compute the weighted sum of the paper's three terms, over the whole batch also on several ranks."""
        features = [self.encode(batch, number) for number in range(len(batch.views))]
        z1, z2 = (self.predictor(gather_ranks(x)).float() for x in features)
        terms = vicreg_terms(z1, z2)
        weights = self.config
        loss = weights.invariance * terms.invariance + weights.variance * terms.variance
        loss = loss + weights.covariance * terms.covariance
        metrics = {name: term.detach() for name, term in terms._asdict().items()}
        return Output(loss, metrics, features[0].detach())
