"""A decoder that shows what a representation contains: it samples pixels from it, several times (I-JEPA, section 8).

What all samples from one condition share is in the representation; what differs between them is not. Trained by flow
matching (Lipman et al., 2023, arXiv 2210.02747; Liu et al., 2023, arXiv 2209.03003) on top of frozen networks.

B batch  T sampled tokens  E raw token width  D encoder width  C condition width  K conditions, 1 or T  P coordinates
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.options import Condition
from openjepa.core.protocols import Modality
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Keep, Masks, MaskShape, Output, StepFlops, Tokens
from openjepa.methods.base import BaseMethod, ViTMethodConfig
from openjepa.methods.next_commands import Commands, decoder_commands
from openjepa.nn.ema import update_ema
from openjepa.nn.flops import predictor_flops, transformer_flops, vit_flops
from openjepa.nn.flow import MIN_TIME_LEFT, Conditions, FlowTransformer, normal_samples, sample_times, velocity
from openjepa.nn.init import initialize
from openjepa.nn.predictor import Predictor, PredictorConfig


@dataclass(frozen=True)
class Decoder(ViTMethodConfig):
    """Train a network that samples pixels from the representations of a frozen JEPA or MAE.

    features: sample the whole image from the target encoder's output, mean over tokens. prediction: sample the target
    block from the predictor's output for that block; the context is the predictor's input, not the decoder's.

    Source: I-JEPA (Assran et al., 2023), section 8; flow matching (Liu et al., arXiv 2209.03003, equation 1).

    Differs: flow matching with a transformer on patches, where the paper has RCDM's diffusion with a U-Net.
    """

    predictor: PredictorConfig = field(default_factory=PredictorConfig)  # of the run that is decoded
    predicts_pixels: bool = False  # whether that run has a pixel loss, so that its predictor also outputs pixels
    # what the samples are drawn from: features of a whole image, or a predicted block
    condition: Condition = "features"
    pooled: bool = True  # with condition prediction: the block's mean token as in the paper; False: one token per patch
    decoder_dim: int = 256  # width of the decoder
    decoder_depth: int = 8  # number of transformer blocks of the decoder
    decoder_heads: int = 4  # attention heads of the decoder; decoder_dim must be a multiple of 4 · heads

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the widths have room for heads and positions."""
        super().check(data, masks)
        self.predictor.check(data.layout.coordinates, "--method.predictor", self.encoder)

    def build(self, modality: Modality, seed: int = 0) -> FlowDecoder:
        """Build the method with freshly initialized weights; --init-from replaces those of the frozen networks."""
        return FlowDecoder(self, modality, torch.Generator().manual_seed(seed))

    def next_commands(self, run: str, data: Any) -> Commands:
        """Return what to type next with a decoder."""
        return decoder_commands(run)

    def build_predictor(self, modality: Modality) -> Predictor:
        """Build the predictor alone, with torch's default initialization."""
        return self.predictor.build(self.encoder, self.output_dim(modality))

    def output_dim(self, modality: Modality) -> int:
        """Return the width of a prediction: features, then (with a pixel loss) pixels."""
        return self.encoder.dim + (modality.token_dim if self.predicts_pixels else 0)

    def describe(self) -> str:
        """Describe the networks in one line."""
        return f"{super().describe()}; decoder {self.decoder_dim}×{self.decoder_depth} from {self.condition}"

    def cost(self, data: Modality, masks: Iterable[MaskShape]) -> StepFlops:
        """Return the FLOPs of the decoder, forward and backward, and of the frozen networks, forward, as targets."""
        context, _, block_tokens = next(iter(masks))
        predicts, dim = self.condition == "prediction", self.decoder_dim
        tokens = block_tokens if predicts else data.layout.count
        frozen = vit_flops(self.encoder, data, context if predicts else data.layout.count)
        if predicts:
            one_block = context, 1, block_tokens
            frozen += predictor_flops(self.predictor, self.encoder.dim, self.output_dim(data), one_block)
        decoder = 4 * tokens * data.token_dim * dim + transformer_flops(self.decoder_depth, dim, tokens)
        return StepFlops(target=frozen, context=0, predictor=3 * decoder)


class FlowDecoder(BaseMethod):
    """Frozen networks, the decoder network (`drawer`), and its EMA (`averaged`), which generates the samples."""

    def __init__(self, config: Decoder, modality: Modality, generator: torch.Generator):
        super().__init__()
        self.config, self.modality = config, modality
        self.target_encoder = config.build_encoder(modality)
        initialize(self.target_encoder, generator, config.encoder.init)
        condition_dim = config.encoder.dim
        if config.condition == "prediction":
            self.context_encoder, self.predictor = config.build_encoder(modality), config.build_predictor(modality)
            initialize(self.context_encoder, generator, config.encoder.init)
            initialize(self.predictor, generator, config.predictor.init)
            condition_dim = config.output_dim(modality)
        self.requires_grad_(False)
        sizes = config.decoder_dim, config.decoder_depth, config.decoder_heads
        self.drawer = FlowTransformer(condition_dim, modality.token_dim, *sizes)
        initialize(self.drawer, generator, "scaled")
        nn.init.zeros_(self.drawer.proj.weight)  # start from the mean image, not from noise of the initialization
        self.averaged = copy.deepcopy(self.drawer).requires_grad_(False)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Conditions:
        """Compute the condition of each sample with the frozen networks."""
        tokens = self.modality.tokens(batch.views[0])
        if self.config.condition == "features":
            return Conditions(self.mean_features(tokens)[:, None])
        return Conditions(self.predict_block(tokens, batch.masks[0]))

    def mean_features(self, tokens: Tokens) -> Float[Tensor, "B D"]:
        """Return the target encoder's output for these tokens, mean over them."""
        (features,) = self.target_encoder(tokens)
        return features.mean()

    def predict_block(self, tokens: Tokens, mask: Masks) -> Float[Tensor, "B K C"]:
        """Return the predictor's output for the first target block: its mean, or every token."""
        valid = None if mask.context_valid is None else mask.context_valid[:, None]
        (context,) = self.context_encoder(tokens, Keep(mask.context[:, None], valid))
        where = tokens.take(mask.target[:, 0]).pos[:, None]
        predicted = self.predictor(context, where=where)[:, 0].float()
        return predicted.mean(1, keepdim=True) if self.config.pooled else predicted

    def region_tokens(self, tokens: Tokens, masks: tuple[Masks, ...]) -> Tokens:
        """Return the tokens to sample: the whole image with condition "features", else the target block."""
        return tokens if self.config.condition == "features" else tokens.take(masks[0].target[:, 0])

    def forward(self, batch: Batch, targets: Conditions) -> Output:
        """Compute the flow-matching loss: mean squared error of the velocity (Liu et al., 2023, equation 1).

        x_t = (1 - t) · noise + t · pixels, and the network predicts the pixels. Their error divided by the time left,
        1 - t, is the error of the velocity pixels - noise; the division is by 0.05 at least.
        """
        region = self.region_tokens(self.modality.tokens(batch.views[0]), batch.masks)
        rng = CounterRNG.of(0, 0, batch.index.cpu().numpy())
        noise = normal_samples(rng, "noise", region.x.shape[1:]).to(region.x.device)
        t = sample_times(rng).to(region.x.device)
        pixels = region.x.float()
        x_t = noise.lerp(pixels, t[:, None, None])
        time_left = (1 - t).clamp(min=MIN_TIME_LEFT)[:, None, None]
        predicted = self.drawer(region._replace(x=x_t), t, targets.x).float()
        loss = ((predicted - pixels) / time_left).square().mean()
        reference = (pixels - noise).square().mean()
        metrics = {"mean_target_loss": reference, "relative_loss": loss.detach() / reference}
        return Output(loss, metrics, targets.x.mean(1))

    @torch.no_grad()
    def after_step(self, momentum: float, step_taken: Tensor | None = None) -> None:
        """Update the EMA of the decoder network, which generates the samples."""
        update_ema(self.averaged, self.drawer, momentum, step_taken)

    @torch.no_grad()
    def sample(self, conditions: Conditions, where: Float[Tensor, "B T P"], rng: CounterRNG, steps: int = 25) -> Tensor:
        """Generate raw tokens (B, T, E) at these positions from noise that `rng` determines.

        Integrates the flow from t = 0 to 1 by Heun's method in `steps` equal steps; the last one is an Euler step.
        """
        x = normal_samples(rng, "noise", (where.shape[1], self.modality.token_dim)).to(where.device)
        for step in range(steps):
            t, t_next = (x.new_full((len(x),), number / steps) for number in (step, step + 1))
            start = velocity(self.averaged, Tokens(x, where), t, conditions)
            x_next = x + start / steps
            if step + 1 < steps:
                end = velocity(self.averaged, Tokens(x_next, where), t_next, conditions)
                x_next = x + (start + end) / (2 * steps)
            x = x_next
        return x

    def encoders(self) -> dict[str, nn.Module]:
        """Return the encoder whose representations are decoded."""
        return {"target": self.target_encoder}


def image_rng(seed: int, count: int) -> CounterRNG:
    """Return the random numbers of `count` images to sample."""
    return CounterRNG.of(seed, 0, np.arange(count))
