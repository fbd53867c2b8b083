"""Masked JEPA whose predictor is told what another modality perceives: the future of a clip, given its sound.

B batch  N tokens  D encoder width  A teacher width
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Output, Tokens
from openjepa.masking.stack import MaskedBatch, stack_masks
from openjepa.methods.masked import EPSILON, LossPair, MaskedConfig, MaskedPrediction, Targets, compare, masked_output
from openjepa.nn.conditioning import FeatureConditioner
from openjepa.nn.losses import smooth_l1
from openjepa.nn.predictor import Predictor
from openjepa.nn.target_transforms import global_mean_var


@dataclass(frozen=True)
class Conditioned(MaskedConfig):
    """JEPA on the first modality of pairs, whose predictor also gets the features of the second one.

    L = d(predictor(encoder(x visible), positions, teacher(y)), LayerNorm(ema_encoder(x))[hidden])

    for pairs (x, y) such as a clip and its sound; with the masks `causal`, it predicts the future of the clip. y is
    encoded by a frozen earlier run, averaged over its tokens, standardized over the global batch, and concatenated to
    each query, as an action in IWM. The metric `other_condition_loss` is the loss if each sample gets the y of another
    one: as long as it is not above the loss, the predictor has no use for y.

    Source: conditions of a predictor are those of Garrido et al., 2024, arXiv 2403.00504, section 3.2.
    """

    teacher: str = ""  # folder of the run whose encoder reads the second modality of the pairs
    teacher_dim: int = 0  # width of the teacher's features; 0: that of the encoder

    def teachers(self) -> dict[str, str]:
        """Return the folder of the teacher."""
        return {"teacher": self.teacher}

    @property
    def condition_dim(self) -> int:
        return self.teacher_dim or self.encoder.dim

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless there are pairs, and the networks fit the first modality."""
        super().check(data, masks)
        if getattr(data, "second", None) is None:
            raise UserError("conditioned needs pairs of two modalities: try --modality pair")
        if self.teacher_dim < 0:
            raise UserError(f"--method.teacher-dim must be >= 0, got {self.teacher_dim}")

    def build(self, modality: Modality, seed: int = 0) -> ConditionedPrediction:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return ConditionedPrediction(self, modality, torch.Generator().manual_seed(seed))

    def build_predictor(self, modality: Modality) -> Predictor:
        """Build the predictor alone, with torch's default initialization."""
        conditioner = FeatureConditioner(self.predictor.dim, self.condition_dim)
        return self.predictor.build(self.encoder, self.target_dim, conditioner)

    def describe(self) -> str:
        """Describe the networks and the targets in one line."""
        return f"{super().describe()}; conditioned on {self.condition_dim} features of the other modality"


class ConditionedTargets(NamedTuple):
    """What the predictor has to match, and what it is told of the other modality."""

    targets: Targets
    condition: Float[Tensor, "B A"]


class ConditionedPrediction(MaskedPrediction):
    """Networks and loss of a `Conditioned` config."""

    def __init__(self, config: Conditioned, modality: Modality, generator: torch.Generator):
        super().__init__(config, modality, generator)
        self.config = config

    @torch.no_grad()
    def targets(self, batch: Batch) -> ConditionedTargets:
        """Encode the whole first modality with the EMA encoder, and the second one with the teacher."""
        (tokens,) = self.teachers["teacher"](batch.views[1])
        heard = tokens.mean().float()
        if heard.shape[-1] != self.config.condition_dim:
            raise UserError(
                f"the teacher has features of width {heard.shape[-1]}: type --method.teacher-dim {heard.shape[-1]}"
            )
        mean, variance = global_mean_var(heard[:, None])
        return ConditionedTargets(self.encode_targets(batch.views[0]), (heard - mean) * (variance + EPSILON).rsqrt())

    def forward(self, batch: Batch, targets: ConditionedTargets) -> Output:
        """Compute the loss of predicting what is hidden from the rest and from the other modality."""
        tokens, condition = self.modality.tokens(batch.views[0]), targets.condition
        losses: list[LossPair] = []
        others: list[Tensor] = []
        for masked in stack_masks(tokens, targets.targets.x, batch.masks):
            (context,) = self.context_encoder(tokens, masked.keep)
            losses.append(compare(smooth_l1, self.predict(context, masked, condition), masked))
            with torch.no_grad():
                other = self.predict(context, masked, condition.roll(1, 0))
                others.append(smooth_l1(other, masked.targets, masked.valid))
        output = masked_output(losses, targets.targets)
        return output._replace(metrics=output.metrics | {"other_condition_loss": torch.stack(others).mean()})

    def predict(
        self, context: Tokens, masked: MaskedBatch, condition: Float[Tensor, "B A"]
    ) -> Float[Tensor, "R M T D"]:
        """Predict the features at the hidden positions of each mask of a sample."""
        conditions = condition.repeat_interleave(len(masked.mask_sets), 0)
        return self.predictor(context, masked.where, conditions, masked.valid, masked.mask_sets)
