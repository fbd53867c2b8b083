"""A world model: predict the next state's features from this one's and the action, step by step."""

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
class World(MethodConfig):
    """Roll out the first state under the actions; predict the raw states."""

    dim: int = 32

    @property
    def needs_masks(self) -> bool:
        return False

    def build(self, modality: Any, seed: int = 0) -> WorldMethod:
        return WorldMethod(self.dim, modality, torch.Generator().manual_seed(seed))


class WorldMethod(BaseMethod):
    """An encoder of single states, a step from features and action to features, and a decoder of states."""

    def __init__(self, dim: int, modality: Any, generator: torch.Generator):
        super().__init__()
        self.modality = modality
        self.network = ViT(modality.tokenizer(dim), dim, 1, 2)
        self.step = nn.Sequential(nn.Linear(dim + 2, dim), nn.GELU(), nn.Linear(dim, dim))
        self.decode = nn.Linear(dim, 2)
        initialize(self, generator, "scaled")

    def forward(self, batch: Batch, targets: None) -> Output:
        assert batch.conditions is not None
        states, actions = batch.views[0], batch.conditions
        (first,) = self.network(self.modality.tokens(states[:, :1]))
        feature, losses = first.mean(), []
        for step in range(actions.shape[1]):
            feature = feature + self.step(torch.cat([feature, actions[:, step]], -1))
            losses.append(F.mse_loss(self.decode(feature), states[:, step + 1]))
        return Output(torch.stack(losses).mean(), {}, first.mean().detach())

    def encoders(self) -> dict[str, nn.Module]:
        return {"perception": self.network}
