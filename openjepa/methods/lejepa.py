"""LeJEPA: views of an image agree, and their embeddings are normally distributed (arXiv 2511.08544).

B batch  V views  D encoder width  E embedding width
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.distributed import gather_ranks
from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Output
from openjepa.methods.views import JointViews, ViewsConfig
from openjepa.nn.expander import ExpanderConfig
from openjepa.nn.regularizers import kernel_sigreg, sigreg


@dataclass(frozen=True)
class LeJEPA(ViewsConfig):
    """LeJEPA: the views of an image agree, and embeddings follow a standard normal distribution.

    L = (1 - λ) · mean over views of |z - mean of the image's views|² / E + λ · B · mean over views of SIGReg(z)

    with z = expander(mean token of encoder(view)). No EMA, no stop-gradient, no predictor.

    Source: Balestriero and LeCun, 2025, arXiv 2511.08544; `kernel`: KerJEPA, arXiv 2512.19605.

    Differs: all views have the same size; with `masked`, each shows a part of its crop, in place of small crops.
    """

    expander: ExpanderConfig = field(default_factory=lambda: ExpanderConfig(dim=2048, output_dim=64))
    views: int = 4  # random crops of each image
    regularization: float = 0.02  # λ, the share of SIGReg in the loss
    # SIGReg. sliced: along random directions; kernel: its mean over all directions in closed form, for small batches
    regularizer: Literal["sliced", "kernel"] = "kernel"
    slices: int = 256  # random directions of the sliced one

    @property
    def num_views(self) -> int:
        return self.views

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless there are views to compare and the share is one."""
        super().check(data, masks)
        if self.views < 2:
            raise UserError(f"--method.views must be >= 2, got {self.views}")
        if not 0 < self.regularization < 1:
            raise UserError(f"--method.regularization must be between 0 and 1, got {self.regularization:g}")

    def build(self, modality: Modality, seed: int = 0) -> NormalEmbedding:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return NormalEmbedding(self, modality, seed)


class NormalEmbedding(JointViews):
    """Networks and loss of a `LeJEPA` config."""

    def __init__(self, config: LeJEPA, modality: Modality, seed: int):
        super().__init__(config, modality, torch.Generator().manual_seed(seed))
        self.config, self.seed = config, seed

    def forward(self, batch: Batch, targets: None) -> Output:
        """Compute the distance of the views to their mean and SIGReg of each view, over the batch of all ranks."""
        features = [self.encode(batch, number) for number in range(len(batch.views))]
        z = torch.stack([self.predictor(gather_ranks(x)).float() for x in features])  # V B E
        distance = (z - z.mean(0)).square().mean()
        normality = z.shape[1] * torch.stack([self.distance_to_normal(view, batch) for view in z]).mean()
        share = self.config.regularization
        metrics = {"distance": distance.detach(), "sigreg": normality.detach()}
        return Output((1 - share) * distance + share * normality, metrics, features[0].detach())

    def distance_to_normal(self, z: Float[Tensor, "B E"], batch: Batch) -> Float[Tensor, ""]:
        """Compute SIGReg of one view; all ranks draw the same directions, others in every step."""
        if self.config.regularizer == "kernel":
            return kernel_sigreg(z)
        first = int(gather_ranks(batch.index).min())
        return sigreg(z, self.config.slices, torch.Generator().manual_seed(first + self.seed))
