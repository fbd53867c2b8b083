"""A decoder: what a representation holds, drawn as pixels, many times over (paper, section 8).

What is the same in all that is drawn from one condition is in the representation; what differs is not. Trained on top of
networks that stay as they are, by flow matching (Lipman et al., 2023, arXiv 2210.02747; Liu et al., 2023, arXiv 2209.03003).

B batch  T tokens drawn  E width of a raw token  D width of the encoder  K conditions, 1 or T  P coordinates
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.distributed import local_shards
from openjepa.core.protocols import Modality
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Masks, Output, Tokens
from openjepa.methods.jepa import JEPA
from openjepa.nn.flow import MIN_TIME_LEFT, Conditions, FlowTransformer, normal_samples, sample_times, velocity
from openjepa.nn.init import initialize
from openjepa.nn.vit import ViT

Condition = Literal["features", "prediction"]


@dataclass(frozen=True)
class Decoder(JEPA):
    """A JEPA's networks, which do not change, and a network that draws what they see.

    "features": the target encoder's output, mean over the tokens of a whole sample; all of it is drawn. "prediction": what
    the predictor expects in the target block, seeing the context; the block is drawn. The decoder never sees the context.
    Differs from the paper: flow matching in place of RCDM's diffusion, on patches and not by a U-Net.
    """

    whole_batch: ClassVar[bool] = False  # type: ignore[misc]

    condition: Condition = "features"
    pooled: bool = True  # of a prediction: its mean over the block, as in the paper; False: every token's by itself
    decoder_dim: int = 256
    decoder_depth: int = 8
    decoder_heads: int = 4

    def build(self, modality: Modality, seed: int = 0) -> FlowDecoder:  # type: ignore[override]
        """The method with freshly initialised weights, the encoder's too: they come by --init-from."""
        return FlowDecoder(self, modality, torch.Generator().manual_seed(seed))


class FlowDecoder(nn.Module):
    """Frozen networks, the drawer, and its average, which is what draws in the end."""

    num_views = 1

    def __init__(self, config: Decoder, modality: Modality, generator: torch.Generator):
        super().__init__()
        self.config, self.modality = config, modality
        self.target_encoder = config.encoder(modality)
        width = config.dim
        if config.condition == "prediction":
            self.context_encoder, self.predictor = config.encoder(modality), config.predictor(modality)
            width = self.predictor.proj.out_features
        initialize(self, generator, config.init)
        self.requires_grad_(False)
        self.drawer = FlowTransformer(
            width, modality.token_dim, config.decoder_dim, config.decoder_depth, config.decoder_heads
        )
        initialize(self.drawer, generator, "scaled")
        nn.init.zeros_(self.drawer.proj.weight)  # what is drawn first is the mean, not noise of our own
        self.averaged = copy.deepcopy(self.drawer).requires_grad_(False)

    @torch.no_grad()
    def targets(self, batch: Batch, masks: tuple[Masks, ...]) -> Conditions:
        """What is drawn from, of each sample."""
        tokens = self.modality.tokens(batch.views[0])
        if self.config.condition == "features":
            return Conditions(self.pooled(tokens)[:, None])
        return Conditions(self.predicted(tokens, masks[0]))

    def pooled(self, tokens: Tokens) -> Float[Tensor, "B D"]:
        """Features of what is there: the target encoder's output, mean over tokens."""
        (seen,) = self.target_encoder(tokens)
        return seen.x.float().mean(1)

    def predicted(self, tokens: Tokens, mask: Masks) -> Float[Tensor, "B K C"]:
        """What the predictor expects in the target block."""
        (context,) = self.context_encoder(tokens.take(mask.context, mask.context_valid))
        where = tokens.take(mask.target[:, 0]).pos[:, None]
        expected = self.predictor(context, where=where)[:, 0].float()
        return expected.mean(1, keepdim=True) if self.config.pooled else expected

    def region_tokens(self, tokens: Tokens, masks: tuple[Masks, ...]) -> Tokens:
        """What is to be drawn: the target block, or all there is."""
        return tokens if self.config.condition == "features" else tokens.take(masks[0].target[:, 0])

    def forward(self, batch: Batch, masks: tuple[Masks, ...], targets: Conditions) -> Output:
        """The flow's error: from noise at time 0 to pixels at time 1 on straight lines (Liu et al., 2023, equation 1).

        What the drawer takes the pixels for is wrong by that much in the time that is left, or in a twentieth of all.
        """
        there = self.region_tokens(self.modality.tokens(batch.views[0]), masks)
        draws = CounterRNG.of(0, 0, batch.index.cpu().numpy())
        noise, at = (
            each.to(there.x.device) for each in (normal_samples(draws, "noise", there.x.shape[1:]), sample_times(draws))
        )
        pixels = there.x.float()
        between = noise.lerp(pixels, at[:, None, None])
        left = (1 - at).clamp(min=MIN_TIME_LEFT)[:, None, None]
        found = self.drawer(there._replace(x=between), at, targets.x).float()
        loss, reference = ((found - pixels) / left).square().mean(), (pixels - noise).square().mean()
        metrics = {"mean_target_loss": reference, "relative_loss": loss.detach() / reference}
        return Output(loss, metrics, targets.x.mean(1))

    @torch.no_grad()
    def after_step(self, momentum: float, taken: Tensor | None = None) -> None:
        """averaged ← momentum · averaged + (1 - momentum) · drawer; nothing moves where no step was taken."""
        following, leading = local_shards(self.averaged.parameters()), local_shards(self.drawer.parameters())
        pace = 1.0 - momentum if taken is None else torch.where(taken, 1.0 - momentum, 0.0)
        torch._foreach_lerp_(following, leading, pace if taken is None else [pace] * len(following))  # pyright: ignore

    @torch.no_grad()
    def draw(self, conditions: Conditions, where: Float[Tensor, "B T P"], draws: CounterRNG, steps: int = 25) -> Tensor:
        """Raw tokens (B, T, E) at these places, from noise that the draws choose.

        The flow is followed by Heun's method in equal steps, the last one Euler's.
        """
        x = normal_samples(draws, "noise", (where.shape[1], self.modality.token_dim)).to(where.device)
        for step in range(steps):
            at, then = (x.new_full((len(x),), each / steps) for each in (step, step + 1))
            here = velocity(self.averaged, Tokens(x, where), at, conditions)
            ahead = x + here / steps
            if step + 1 < steps:
                there = velocity(self.averaged, Tokens(ahead, where), then, conditions)
                ahead = x + (here + there) / (2 * steps)
            x = ahead
        return x

    def encoder(self, which: str = "target") -> ViT:
        """The encoder that is drawn from."""
        if which == "context" and self.config.condition == "prediction":
            return self.context_encoder
        return self.target_encoder


def image_rng(seed: int, count: int) -> CounterRNG:
    """Draws of `count` pictures to be made."""
    return CounterRNG.of(seed, 0, np.arange(count))
