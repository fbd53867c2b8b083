"""Predict one view from the other and the parameters of the transformation between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from openjepa.core.types import Batch, Output
from openjepa.methods.base import BaseMethod, MethodConfig
from openjepa.nn.init import initialize
from openjepa.nn.vit import ViT


@dataclass(frozen=True)
class Undo(MethodConfig):
    """Predict the second view's raw tokens from the first view's features and the conditions."""

    dim: int = 32

    @property
    def needs_masks(self) -> bool:
        return False

    def build(self, modality: Any, seed: int = 0) -> UndoMethod:
        return UndoMethod(self.dim, modality, torch.Generator().manual_seed(seed))


class UndoMethod(BaseMethod):
    """An encoder and a head that also gets the conditions."""

    def __init__(self, dim: int, modality: Any, generator: torch.Generator):
        super().__init__()
        self.modality = modality
        self.network = ViT(modality.tokenizer(dim), dim, 2, 2)
        self.head = nn.Sequential(nn.Linear(dim + 2, 64), nn.GELU(), nn.Linear(64, modality.token_dim))
        initialize(self, generator, "scaled")

    def forward(self, batch: Batch, targets: None) -> Output:
        assert batch.conditions is not None
        (features,) = self.network(self.modality.tokens(batch.views[0]))
        condition = batch.conditions.expand(-1, features.x.shape[1], -1)
        predicted = self.head(torch.cat([features.x, condition], -1))
        loss = F.mse_loss(predicted, self.modality.tokens(batch.views[1]).x)
        return Output(loss, {}, features.mean().detach())

    def encoders(self) -> dict[str, nn.Module]:
        return {"context": self.network}
