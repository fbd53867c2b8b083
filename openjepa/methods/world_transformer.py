"""A block-causal transformer as dynamics on a frozen encoder (V-JEPA 2-AC).

B batch  T steps  F = T + 1 observations  N cells  D width
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.types import Batch, Output, Signal
from openjepa.methods.base import BaseMethod, WorldConfig
from openjepa.methods.world_model import WorldModel
from openjepa.nn.block_causal import BlockCausal, BlockCausalConfig
from openjepa.nn.convnet import ConvNet
from openjepa.nn.world import World, encode_steps


@dataclass(frozen=True)
class WorldTransformer(WorldConfig):
    """Predict the frozen latents of coming observations from those before and the actions.

    L = mean |P(z_0 … z_t, a_0 … a_t) - z_t+1| + mean |P(z_0, ẑ_1, a_0, a_1) - z_2|,  z = LayerNorm(encoder(x))

    Source: V-JEPA 2-AC (arXiv 2506.09985, equations 2 and 3): teacher forcing, and a roll-out of two steps.
    """

    world: WorldModel = field(default_factory=WorldModel)  # of the run whose weights this one starts from; frozen
    transformer: BlockCausalConfig = field(default_factory=BlockCausalConfig)
    roll_out: float = 1.0  # weight of the error of the roll-out

    def networks(self, modality: Any) -> WorldTransformerMethod:
        return WorldTransformerMethod(self, modality)

    def check(self, data: Any, masks: Any) -> None:
        """Raise UserError if the world's latents are not maps."""
        self.world.check(data, masks)
        self.world.check_map()

    def describe(self) -> str:
        return f"block-causal transformer, {self.transformer.depth}×{self.transformer.dim}, on {self.world.describe()}"

    def signals(self) -> tuple[Signal, ...]:
        return ()


class TransformerWorld(World):
    """A frozen world whose steps are imagined by a transformer, on normalized latents."""

    def __init__(self, perception: ConvNet, dynamics: nn.Module, transformer: BlockCausal):
        super().__init__(perception, dynamics)
        self.requires_grad_(False)
        self.transformer = transformer

    def step(self, state: Float[Tensor, "B N D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B N D"]:
        """Imagine the latent after an action, from this latent alone."""
        return self.transformer(F.layer_norm(state, state.shape[-1:])[:, None], action[:, None])[:, 0]


class WorldTransformerMethod(BaseMethod):
    """Networks and loss of a `WorldTransformer` config."""

    def __init__(self, config: WorldTransformer, modality: Any):
        super().__init__()
        self.config, self.modality = config, modality
        dim, actions, cells = config.world.encoder.dim, modality.action_dim, modality.grid
        transformer = BlockCausal(config.transformer, dim, actions, cells)
        self.world = TransformerWorld(*config.world.build_parts(modality), transformer)

    def targets(self, batch: Batch) -> Float[Tensor, "B F N D"]:
        """Encode all observations with the frozen encoder, and normalize them."""
        states = encode_steps(self.world, self.modality.tokens(batch.views[0]), batch.views[0].shape[1])
        return F.layer_norm(states, states.shape[-1:])

    def forward(self, batch: Batch, targets: Float[Tensor, "B F N D"]) -> Output:
        """Compute the errors of teacher forcing and of a roll-out of two steps."""
        assert batch.conditions is not None
        actions, transformer = batch.conditions, self.world.transformer
        predicted = transformer(targets[:, :-1], actions)
        forced = F.l1_loss(predicted, targets[:, 1:])
        history = torch.stack([targets[:, 0], predicted[:, 0]], 1)
        rolled = F.l1_loss(transformer(history, actions[:, :2])[:, 1], targets[:, 2])
        persistence = F.l1_loss(targets[:, :-1], targets[:, 1:])
        metrics = {"teacher_forcing": forced.detach(), "roll_out": rolled.detach()}
        metrics["relative_error"] = (forced / persistence).detach()  # 1: as if nothing moved
        return Output(forced + self.config.roll_out * rolled, metrics, targets[:, 0].mean(1))

    def encoders(self) -> dict[str, nn.Module]:
        return {"world": self.world}
