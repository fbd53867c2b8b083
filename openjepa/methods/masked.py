"""Masked prediction with an EMA target encoder: what I-JEPA and the methods that extend it share.

B batch  N tokens  D encoder width  E target width  K tokens into the EMA encoder
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.protocols import Encoder, Modality
from openjepa.core.types import Keep, MaskShape, Output, Signal, StepFlops, Tokens
from openjepa.masking.stack import MaskedBatch
from openjepa.methods.base import BaseMethod, MethodConfig, ViTMethodConfig
from openjepa.nn.ema import update_ema
from openjepa.nn.flops import predictor_flops, vit_flops
from openjepa.nn.predictor import Predictor, PredictorConfig
from openjepa.nn.target_transforms import center, global_mean_var, mean_target

EPSILON = 1e-4  # added to the variance before targets are standardized

TARGET_STD = Signal(
    "target_std", "0.4 to 1", 0.3, "targets hardly differ between positions", 0.4, 1.0
)  # docs/reference/metrics.md

SLOWER_TARGET = "a slower target (--optim.ema-momentum 0.999 --optim.final-ema-momentum 1 --optim.ema-rampup 0)"


class Targets(NamedTuple):
    """What the predictor has to match, computed by the EMA encoder without gradient."""

    x: Float[Tensor, "B N E"]  # per token: features, then (with a pixel loss) pixels; 0 where nothing is predicted
    features: Float[Tensor, "B D"]  # the EMA encoder's output, mean over tokens
    std: Float[Tensor, ""]  # standard deviation of a feature over all tokens before standardizing, mean over features


@dataclass(frozen=True, kw_only=True)
class TargetsConfig(MethodConfig):
    """Settings of the targets: features of the EMA encoder, normalized per layer, averaged over layers, transformed."""

    # layers of the EMA encoder whose outputs, after its final norm, are averaged to the targets: 0: the first, -1: the
    # last (paper)
    target_layers: tuple[int, ...] = (-1,)
    # applied to the targets in this order. center: subtract an image's mean over the tokens that the EMA encoder saw;
    # standardize: scale each feature to mean 0, variance 1 over the global batch, against collapse in small runs
    target_transforms: tuple[Literal["center", "standardize"], ...] = ()

    def build_networks(self, modality: Modality, generator: torch.Generator) -> tuple[Encoder, nn.Module]:
        """Build the encoder and the predictor with their first weights."""
        raise NotImplementedError

    def check_layers(self, depth: int) -> None:
        """Raise UserError unless the encoder has the target layers."""
        layers = self.target_layers
        if any(not -depth <= layer < depth for layer in layers):
            raise UserError(
                f"--method.target-layers {' '.join(map(str, layers))} must be layers of the encoder, "
                f"numbered 0 to {depth - 1} (-1: the last): "
                f"try --method.target-layers {' '.join(map(str, range(depth // 3, depth)))}"
            )

    def signals(self) -> tuple[Signal, ...]:
        """Return the metrics to watch for collapse."""
        return (TARGET_STD, *super().signals())

    def advice(self) -> str:
        """Return what to type against collapse, without what these settings do already."""
        transforms = self.target_transforms
        standardize = f"--method.target-transforms {' '.join((*transforms, 'standardize'))}, "
        return (
            f"try {'' if 'standardize' in transforms else standardize}{SLOWER_TARGET} or a lower --optim.lr; "
            "see docs/reference/metrics.md"
        )


@dataclass(frozen=True)
class MaskedConfig(TargetsConfig, ViTMethodConfig):
    """Settings of a Vision Transformer that learns from an EMA of itself, and of its predictor."""

    predictor: PredictorConfig = field(default_factory=PredictorConfig)

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the networks fit the data and the target layers exist."""
        super().check(data, masks)
        self.predictor.check(data.layout.coordinates, "--method.predictor", self.encoder)
        self.predictor.check_mask_tokens("--method.predictor", masks)
        self.check_layers(self.encoder.depth)

    def build_networks(self, modality: Modality, generator: torch.Generator) -> tuple[Encoder, nn.Module]:
        """Build the encoder and the predictor with their first weights."""
        encoder, predictor = self.build_encoder(modality), self.build_predictor(modality)
        self.encoder.initialize(encoder, generator, modality.token_dim)
        self.predictor.initialize(predictor, generator)
        return encoder, predictor

    def build_predictor(self, modality: Modality) -> Predictor:
        """Build the predictor alone, with torch's default initialization."""
        return self.predictor.build(self.encoder, self.output_dim(modality))

    def output_dim(self, modality: Modality) -> int:
        """Return the width of a prediction."""
        return self.target_dim

    @property
    def target_dim(self) -> int:
        """Return the width of the features that are predicted."""
        return self.encoder.dim

    def describe(self) -> str:
        """Describe the networks and the targets in one line."""
        layers = " ".join(map(str, self.target_layers))
        return f"{super().describe()}; predictor {self.predictor.describe()}; targets of blocks {layers}"

    def cost(self, data: Modality, masks: Iterable[MaskShape]) -> StepFlops:
        """Return the FLOPs of one sample under these masks, which share one forward pass of the EMA encoder."""
        masks = list(masks)
        output_dim = self.output_dim(data)
        return StepFlops(
            target=vit_flops(self.encoder, data, self.target_tokens(data, masks)),
            context=sum(3 * vit_flops(self.encoder, data, context) for context, _, _ in masks),
            predictor=sum(3 * predictor_flops(self.predictor, self.encoder.dim, output_dim, mask) for mask in masks),
        )

    def target_tokens(self, data: Modality, masks: list[MaskShape]) -> int:
        """Return how many tokens the EMA encoder sees."""
        return data.layout.count


class MaskedPrediction(BaseMethod):
    """Context encoder, predictor, and the context encoder's EMA, which gives the targets; a subclass has the loss."""

    def __init__(self, config: TargetsConfig, modality: Modality, generator: torch.Generator):
        super().__init__()
        self.modality = modality
        self.context_encoder, self.predictor = config.build_networks(modality, generator)
        self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)
        self.target_layers, self.target_transforms = config.target_layers, config.target_transforms

    @torch.no_grad()
    def encode_targets(self, view: Any, keep: Keep | None = None) -> Targets:
        """Encode views, or the tokens of `keep` alone, with the EMA encoder, and normalize the features."""
        *layers, output = self.target_encoder(self.modality.tokens(view), keep, layers=(*self.target_layers, -1))
        x, std = self.transform(self.average_layers(layers), output.valid)
        return Targets(x, output.mean(), std)

    @torch.no_grad()
    def after_step(self, momentum: float, step_taken: Tensor | None = None) -> None:
        """Move the target encoder towards the context encoder that the optimizer just updated (EMA)."""
        update_ema(self.target_encoder, self.context_encoder, momentum, step_taken)

    def encoders(self) -> dict[str, nn.Module]:
        """Return the EMA encoder, which the paper evaluates, and the context encoder."""
        return {"target": self.target_encoder, "context": self.context_encoder}

    def average_layers(self, layers: list[Tokens]) -> Float[Tensor, "B K E"]:
        """Apply LayerNorm (no affine) to each layer's tokens, then average the layers.

        The LayerNorm comes from the official code of I-JEPA; the paper does not mention it.
        """
        return torch.stack([F.layer_norm(tokens.x.float(), tokens.x.shape[-1:]) for tokens in layers]).mean(0)

    def transform(
        self, x: Float[Tensor, "B K E"], valid: Bool[Tensor, "B K"] | None
    ) -> tuple[Float[Tensor, "B K E"], Float[Tensor, ""]]:
        """Apply the target transforms in order; also return the mean std of the features before standardizing."""
        std = None
        for name in self.target_transforms:
            if name == "center":
                x = center(x, valid)
            else:
                mean, variance = global_mean_var(x, valid)
                x, std = (x - mean) * (variance + EPSILON).rsqrt(), variance.sqrt().mean()
        return x, global_mean_var(x, valid)[1].sqrt().mean() if std is None else std


class LossPair(NamedTuple):
    """The loss of a prediction, and that of predicting the mean target."""

    loss: Float[Tensor, ""]
    mean_loss: Float[Tensor, ""]


def compare(
    loss: Callable[..., Tensor],
    predicted: Float[Tensor, "R M T E"],
    masked: MaskedBatch,
    mean: Float[Tensor, "*E"] | None = None,
) -> LossPair:
    """Compute the loss of a prediction, and that of the mean target: what a model predicts that ignores its input."""
    mean = mean_target(masked.targets, masked.valid) if mean is None else mean
    guesses = predicted, mean.expand_as(masked.targets)
    return LossPair(*(loss(each, masked.targets, masked.valid) for each in guesses))


def masked_output(pairs: list[LossPair], targets: Targets) -> Output:
    """Return the mean loss over masks.

    `relative_loss` divides by the loss of predicting the mean target: 1 is no better than a constant.
    """
    loss, mean_loss = (torch.stack(parts).mean() for parts in zip(*pairs, strict=True))
    metrics = {"mean_target_loss": mean_loss, "relative_loss": loss.detach() / mean_loss, "target_std": targets.std}
    return Output(loss, metrics, targets.features)
