"""Two named encoders, one on top of the other; both are exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core.protocols import Encoder
from openjepa.core.types import Batch, Keep, Output, Tokens
from openjepa.masking.stack import stack_masks
from openjepa.methods.base import BaseMethod, MethodConfig
from openjepa.nn.ema import update_ema
from openjepa.nn.init import initialize
from openjepa.nn.predictor import Predictor
from openjepa.nn.transformer import Block
from openjepa.nn.vit import ViT


@dataclass(frozen=True)
class TwoLevels(MethodConfig):
    """A low and a high encoder: the high one continues from the low one's features."""

    dim: int = 32

    def build(self, modality: Any, seed: int = 0) -> TwoLevelsMethod:
        return TwoLevelsMethod(self.dim, modality, torch.Generator().manual_seed(seed))


class HighLevel(Encoder):
    """The low encoder and a block on top."""

    def __init__(self, low: ViT):
        super().__init__()
        self.low, self.block = low, Block(low.dim, 2, 2.0)

    def forward(self, tokens: Tokens, keep: Keep | None = None, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        (features,) = self.low(tokens, keep)
        return (features._replace(x=self.block(features.x)),) * len(layers)


class TwoLevelsMethod(BaseMethod):
    """Predict the raw values of the targets from the low features, and the EMA of the high level from the high ones."""

    def __init__(self, dim: int, modality: Any, generator: torch.Generator):
        super().__init__()
        self.modality = modality
        self.high = HighLevel(ViT(modality.tokenizer(dim), dim, 2, 2))
        self.predictor = Predictor(dim, modality.token_dim, dim, 1, 2)
        self.high_predictor = Predictor(dim, dim, dim, 1, 2)
        initialize(self, generator, "scaled")
        self.ema = HighLevel(ViT(modality.tokenizer(dim), dim, 2, 2)).requires_grad_(False)
        self.ema.load_state_dict(self.high.state_dict())

    def targets(self, batch: Batch) -> Tensor:
        (features,) = self.ema(self.modality.tokens(batch.views[0]))
        return F.layer_norm(features.x.float(), features.x.shape[-1:])

    def forward(self, batch: Batch, targets: Tensor) -> Output:
        tokens = self.modality.tokens(batch.views[0])
        (masked,) = stack_masks(tokens, torch.cat([tokens.x.float(), targets], -1), batch.masks)
        values, features = masked.targets.split([tokens.x.shape[-1], targets.shape[-1]], -1)
        (low,), (high,) = self.high.low(tokens, masked.keep), self.high(tokens, masked.keep)
        loss = F.mse_loss(self.predictor(low, where=masked.where), values)
        loss = loss + 0.1 * F.mse_loss(self.high_predictor(high, where=masked.where), features)
        return Output(loss, {}, high.mean().detach())

    def after_step(self, momentum: float, step_taken: Tensor | None = None) -> None:
        update_ema(self.ema, self.high, momentum, step_taken)

    def encoders(self) -> dict[str, nn.Module]:
        return {"high": self.high, "low": self.high.low}
