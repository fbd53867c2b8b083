"""Learned masks: a network chooses which tokens to hide, against the predictor.

B batch  N tokens  M hidden tokens
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Masks, MaskShape, Output, StepFlops
from openjepa.masking.stack import stack_masks
from openjepa.methods.masked import MaskedConfig, MaskedPrediction, Targets, compare, masked_output
from openjepa.nn.flops import vit_flops
from openjepa.nn.losses import smooth_l1
from openjepa.nn.mask_network import MaskNetwork, draw_order, log_probability
from openjepa.nn.vit import ViTConfig


@dataclass(frozen=True)
class LearnedMasks(MaskedConfig):
    """I-JEPA with learned masks: a mask network hides the tokens that the predictor predicts worst.

    The mask network scores the tokens of an image; hidden ones are drawn by their scores, without replacement. It is
    trained by policy gradients, in the same step, to raise the loss that encoder and predictor lower:

    L = d(predicted, target) - weight · mean over hidden tokens of (d_i - mean d) · log softmax(scores)_i

    Source: the aim is LeCun's and the I-JEPA authors' outlook; adversarial masks as in ADIOS (arXiv 2201.13100).

    Differs: hard masks and policy gradients, where ADIOS has soft masks and gradients through the encoder.
    """

    mask_network: ViTConfig = field(default_factory=lambda: ViTConfig(dim=48, depth=2, num_heads=2))
    mask_ratio: float = 0.75  # fraction of the tokens that are hidden and predicted
    mask_weight: float = 0.1  # of the mask network's loss; it changes no other gradient
    # lower: hides the tokens with the highest scores; higher: closer to random masks
    temperature: float = 1.0

    @property
    def needs_masks(self) -> bool:
        return False

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the networks fit the data, and some tokens are hidden and some are not."""
        super().check(data, masks)
        self.mask_network.check(data.layout.coordinates, "--method.mask-network")
        if not 0 < self.mask_ratio < 1:
            raise UserError(f"--method.mask-ratio must be between 0 and 1, got {self.mask_ratio:g}: try 0.75")
        if self.temperature <= 0:
            raise UserError(f"--method.temperature must be above 0, got {self.temperature:g}: try 1")

    def build(self, modality: Modality, seed: int = 0) -> AdversarialMasks:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return AdversarialMasks(self, modality, seed)

    def cost(self, data: Modality, masks: Iterable[MaskShape]) -> StepFlops:
        """Return the FLOPs of one sample; the mask network draws masks, forward, and learns, forward and backward."""
        hidden = int(data.layout.count * self.mask_ratio)
        cost = super().cost(data, [(data.layout.count - hidden, 1, hidden)])
        network = vit_flops(self.mask_network, data, data.layout.count)
        return cost._replace(target=cost.target + network, predictor=cost.predictor + 3 * network)

    def describe(self) -> str:
        """Describe the networks and the targets in one line."""
        return f"{super().describe()}; mask network {self.mask_network.dim}×{self.mask_network.depth}"


class AdversarialMasks(MaskedPrediction):
    """Networks and loss of a `LearnedMasks` config: those of I-JEPA, and the mask network."""

    def __init__(self, config: LearnedMasks, modality: Modality, seed: int):
        generator = torch.Generator().manual_seed(seed)
        super().__init__(config, modality, generator)
        self.config, self.seed = config, seed
        self.mask_network = MaskNetwork(config.mask_network.build(modality.tokenizer(config.mask_network.dim)))
        config.mask_network.initialize(self.mask_network.vit, generator, modality.token_dim)

    def scores(self, batch: Batch) -> Float[Tensor, "B N"]:
        """Score the tokens of each sample."""
        return self.mask_network(self.modality.tokens(batch.views[0])) / self.config.temperature

    @torch.no_grad()
    def masks(self, batch: Batch) -> tuple[Masks, ...]:
        """Draw the hidden tokens of each sample by their scores."""
        scores = self.scores(batch)
        hidden = int(scores.shape[1] * self.config.mask_ratio)
        rng = CounterRNG.of(self.seed, 0, batch.index.cpu().numpy())
        order = draw_order(scores, rng.uniform("learned masks", scores.shape[1]).to(scores.device))
        target, context = (part.sort(dim=1).values for part in order.split([hidden, scores.shape[1] - hidden], 1))
        return (Masks(context, target[:, None]),)

    def targets(self, batch: Batch) -> Targets:
        """Encode the whole image with the EMA encoder and normalize the features."""
        return self.encode_targets(batch.views[0])

    def forward(self, batch: Batch, targets: Targets) -> Output:
        """Compute the loss of the predictor, and that of the mask network, which is rewarded for tokens it hides."""
        tokens = self.modality.tokens(batch.views[0])
        (masked,) = stack_masks(tokens, targets.x, batch.masks)
        (context,) = self.context_encoder(tokens, masked.keep)
        predicted = self.predictor(context, masked.where, valid=masked.valid)
        output = masked_output([compare(smooth_l1, predicted, masked)], targets)

        per_token = F.smooth_l1_loss(predicted.detach().float(), masked.targets, reduction="none").mean(-1)[:, 0]
        reward = per_token - per_token.mean(1, keepdim=True)  # B M
        scores = self.scores(batch)
        mask_loss = -(reward * log_probability(scores, batch.masks[0].target[:, 0])).mean()
        spread = {"mask_score_std": scores.detach().std(1).mean(), "hidden_loss_std": per_token.std(1).mean()}
        return output._replace(
            loss=output.loss + self.config.mask_weight * mask_loss, metrics={**output.metrics, **spread}
        )
