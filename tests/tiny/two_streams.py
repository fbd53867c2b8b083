"""Two data streams with an objective each: predict masked values on one, make two views equal on the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core.types import Batch, Output, ParamGroup
from openjepa.masking.stack import stack_masks
from openjepa.methods.base import BaseMethod, MethodConfig
from openjepa.nn.init import initialize
from openjepa.nn.predictor import Predictor
from openjepa.nn.vit import ViT


@dataclass(frozen=True)
class TwoStreams(MethodConfig):
    """One encoder, trained by turns on masked values (stream 0) and on the agreement of two views (stream 1)."""

    dim: int = 32

    def build(self, modality: Any, seed: int = 0) -> TwoStreamsMethod:
        return TwoStreamsMethod(self.dim, modality, torch.Generator().manual_seed(seed))


class TwoStreamsMethod(BaseMethod):
    """The encoder and two heads; the head of the second stream learns twice as fast."""

    num_views = (1, 1)

    def __init__(self, dim: int, modality: Any, generator: torch.Generator):
        super().__init__()
        self.modality = modality
        self.network = ViT(modality.tokenizer(dim), dim, 2, 2)
        self.predictor = Predictor(dim, modality.token_dim, dim, 1, 2)
        self.head = nn.Linear(dim, 8)
        initialize(self, generator, "scaled")

    def forward(self, batch: Batch, targets: None) -> Output:
        zero = sum(p.sum() * 0 for p in self.parameters())  # so that every parameter has a gradient on every rank
        return self.agree(batch, zero) if batch.stream else self.reconstruct(batch, zero)

    def reconstruct(self, batch: Batch, zero: Any) -> Output:
        tokens = self.modality.tokens(batch.views[0])
        (masked,) = stack_masks(tokens, tokens.x.float(), batch.masks)
        (context,) = self.network(tokens, masked.keep)
        loss = F.mse_loss(self.predictor(context, where=masked.where), masked.targets)
        return Output(loss + zero, {}, context.mean().detach())

    def agree(self, batch: Batch, zero: Any) -> Output:
        one, other = (self.network(self.modality.tokens(view))[0].mean() for view in batch.views)
        loss = F.mse_loss(self.head(one), self.head(other)) + (self.head(one).norm(dim=-1) - 1).square().mean()
        return Output(loss + zero, {}, one.detach())

    def encoders(self) -> dict[str, nn.Module]:
        return {"context": self.network}

    def param_groups(self) -> list[ParamGroup]:
        fast: list[Tensor] = list(self.head.parameters())
        rest = [p for p in self.parameters() if all(p is not each for each in fast)]
        return [ParamGroup(rest), ParamGroup(fast, lr_scale=2.0)]  # type: ignore[arg-type]
