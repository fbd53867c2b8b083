"""Masked JEPA with an EMA target encoder: I-JEPA (Assran et al., CVPR 2023, arXiv 2301.08243).

B batch  N tokens  D encoder width  E target width  M target blocks  T tokens per block  K tokens into the EMA encoder
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Keep, Masks, MaskShape, Output, Signal, StepFlops, Tokens
from openjepa.masking.stack import stack_masks
from openjepa.methods.base import BaseMethod, ViTMethodConfig
from openjepa.nn.ema import update_ema
from openjepa.nn.flops import predictor_flops, vit_flops
from openjepa.nn.losses import LOSSES
from openjepa.nn.predictor import Predictor, PredictorConfig
from openjepa.nn.target_transforms import center, global_mean_var, mean_target, normalize_patches

EPSILON = 1e-4  # added to the variance before targets are standardized

TARGET_STD = Signal(
    "target_std", "0.4 to 1", 0.3, "targets hardly differ between positions", 0.4, 1.0
)  # docs/health.md

SLOWER_TARGET = "a slower target (--optim.ema-momentum 0.999 --optim.final-ema-momentum 1 --optim.ema-rampup 0)"


class Targets(NamedTuple):
    """What the predictor has to match, computed by the EMA encoder without gradient."""

    x: Float[Tensor, "B N E"]  # per token: features, then (with a pixel loss) pixels; 0 where nothing is predicted
    features: Float[Tensor, "B D"]  # the EMA encoder's output, mean over tokens
    std: Float[Tensor, ""]  # standard deviation of a feature over all tokens before standardizing, mean over features


@dataclass(frozen=True)
class JEPA(ViTMethodConfig):
    """I-JEPA: predict the EMA encoder's features of target blocks from a context block.

    L = mean over blocks of d(predictor(encoder(context), positions), LayerNorm(ema_encoder(image))[block])

    Source: Assran et al., CVPR 2023, arXiv 2301.08243, section 3.

    Differs: masks include the last row and column, which the official sampler never draws (see --masks official).
    Additions to the paper, off in the paper: rope, scaled init, and all settings after the loss.
    Targets are normalized per layer, averaged over layers, then transformed.
    """

    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    # between predictions and targets. smooth_l1: official code; l1: V-JEPA; squared_l2: the paper's text; cosine: 1 -
    # cosine
    loss: Literal["smooth_l1", "l1", "squared_l2", "cosine"] = "smooth_l1"
    # layers of the EMA encoder whose outputs, after its final norm, are averaged to the targets: 0: the first, -1: the
    # last (paper)
    target_layers: tuple[int, ...] = (-1,)
    # applied to the targets in this order. center: subtract an image's mean over the tokens that the EMA encoder saw;
    # standardize: scale each feature to mean 0, variance 1 over the global batch, against collapse in small runs
    target_transforms: tuple[Literal["center", "standardize"], ...] = ()
    # what the EMA encoder sees. whole: the image (paper); targets_only: the target tokens alone, which is faster and
    # keeps the context out of the targets; only with one target block and one mask per image
    target_input: Literal["whole", "targets_only"] = "whole"
    # compute the feature loss at every n-th target token only, which saves time; 1: at all target tokens. The pixel
    # loss uses all of them
    target_stride: int = 1
    # weight of an auxiliary loss on the normalized pixels of the target patches; 0: off; 1 stabilizes short runs
    pixel_loss_weight: float = 0.0

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the networks fit the data and the targets exist and fit the masks."""
        super().check(data, masks)
        self.predictor.check(data.layout.coordinates, "--method.predictor", self.encoder)
        self.predictor.check_mask_tokens("--method.predictor", masks)
        depth, layers = self.encoder.depth, self.target_layers
        if any(not -depth <= layer < depth for layer in layers):
            raise UserError(
                f"--method.target-layers {' '.join(map(str, layers))} must be layers of the encoder, "
                f"numbered 0 to {depth - 1} (-1: the last): "
                f"try --method.target-layers {' '.join(map(str, range(depth // 3, depth)))}"
            )
        if self.target_stride < 1:
            raise UserError(f"--method.target-stride must be >= 1, got {self.target_stride}")
        if self.target_stride > 1 and not self.pixel_loss_weight:
            raise UserError(
                f"--method.target-stride {self.target_stride} leaves positions without a target unless there is a "
                "pixel loss: try --method.pixel-loss-weight 1 or --method.target-stride 1"
            )
        if self.target_input == "targets_only" and not draws_one_block(data, masks):
            raise UserError(
                "--method.target-input targets_only requires a single target block per sample: "
                "try --masks random --masks.masks-per-sample 1, or --method.target-input whole"
            )

    def build(self, modality: Modality, seed: int = 0) -> MaskedJEPA:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return MaskedJEPA(self, modality, torch.Generator().manual_seed(seed))

    def build_predictor(self, modality: Modality) -> Predictor:
        """Build the predictor alone, with torch's default initialization."""
        return self.predictor.build(self.encoder, self.output_dim(modality))

    def output_dim(self, modality: Modality) -> int:
        """Return the width of a prediction: features, then (with a pixel loss) pixels."""
        return self.target_dim + (modality.token_dim if self.pixel_loss_weight else 0)

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
        target_tokens = masks[0][1] * len(range(0, masks[0][2], self.target_stride))
        input_tokens = target_tokens if self.target_input == "targets_only" else data.layout.count
        output_dim = self.output_dim(data)
        return StepFlops(
            target=vit_flops(self.encoder, data, input_tokens),
            context=sum(3 * vit_flops(self.encoder, data, context) for context, _, _ in masks),
            predictor=sum(3 * predictor_flops(self.predictor, self.encoder.dim, output_dim, mask) for mask in masks),
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
            "see docs/health.md"
        )


class MaskedJEPA(BaseMethod):
    """Networks and loss of a `JEPA` config: context encoder, predictor, and the context encoder's EMA as the target."""

    def __init__(self, config: JEPA, modality: Modality, generator: torch.Generator):
        super().__init__()
        self.config = config
        self.modality = modality
        self.loss = LOSSES[config.loss]
        self.context_encoder = config.build_encoder(modality)
        self.predictor = config.build_predictor(modality)
        config.encoder.initialize(self.context_encoder, generator, modality.token_dim)
        config.predictor.initialize(self.predictor, generator)
        self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Encode the image with the EMA encoder and normalize the features; append pixels if there is a pixel loss."""
        tokens = self.modality.tokens(batch.views[0])
        keep = self.target_tokens(batch.masks) if self.config.target_input == "targets_only" else None
        *layers, output = self.target_encoder(tokens, keep, layers=(*self.config.target_layers, -1))
        x, std = self.transform(self.average_layers(layers), output.valid)
        if keep is not None:  # back to one row per token of the image; padding repeats tokens, so it changes none
            x = x.new_zeros(*tokens.x.shape[:2], x.shape[-1]).scatter(1, keep.index[:, 0, :, None].expand_as(x), x)
        if self.config.pixel_loss_weight:
            x = torch.cat([x, normalize_patches(tokens.x)], -1)
        return Targets(x, output.mean(), std)

    def forward(self, batch: Batch, targets: Targets) -> Output:
        """Compute the loss of predicting every target block from its context (paper, section 3).

        `relative_loss` divides by the loss of predicting the mean target: 1 is no better than a constant.
        """
        tokens = self.modality.tokens(batch.views[0])
        losses, mean_losses = [], []
        for masked in stack_masks(tokens, targets.x, batch.masks):
            (context,) = self.context_encoder(tokens, masked.keep)
            predicted = self.predictor(context, masked.where, valid=masked.valid, mask_sets=masked.mask_sets)
            losses.append(self.loss_of(predicted, masked.targets, masked.valid))
            mean = self.mean_target(masked.targets, masked.valid)
            mean_losses.append(self.loss_of(mean, masked.targets, masked.valid))
        loss, mean_loss = torch.stack(losses).mean(), torch.stack(mean_losses).mean()
        metrics = {"mean_target_loss": mean_loss, "relative_loss": loss.detach() / mean_loss, "target_std": targets.std}
        return Output(loss, metrics, targets.features)

    @torch.no_grad()
    def after_step(self, momentum: float, step_taken: Tensor | None = None) -> None:
        """Move the target encoder towards the context encoder that the optimizer just updated (EMA)."""
        update_ema(self.target_encoder, self.context_encoder, momentum, step_taken)

    def encoders(self) -> dict[str, nn.Module]:
        """Return the EMA encoder, which the paper evaluates, and the context encoder."""
        return {"target": self.target_encoder, "context": self.context_encoder}

    def target_tokens(self, masks: tuple[Masks, ...]) -> Keep:
        """Return the tokens whose features are predicted, as one group: every `target_stride`-th target token."""
        index, valid = masks[0].target, masks[0].target_valid
        stride = self.config.target_stride
        return Keep(index[..., ::stride].flatten(1)[:, None], None if valid is None else valid[..., ::stride])

    def average_layers(self, layers: list[Tokens]) -> Float[Tensor, "B K E"]:
        """Apply LayerNorm (no affine) to each layer's tokens, then average the layers.

        The LayerNorm comes from the official code; the paper does not mention it.
        """
        return torch.stack([F.layer_norm(tokens.x.float(), tokens.x.shape[-1:]) for tokens in layers]).mean(0)

    def transform(
        self, x: Float[Tensor, "B K E"], valid: Bool[Tensor, "B K"] | None
    ) -> tuple[Float[Tensor, "B K E"], Float[Tensor, ""]]:
        """Apply the target transforms in order; also return the mean std of the features before standardizing."""
        std = None
        for name in self.config.target_transforms:
            if name == "center":
                x = center(x, valid)
            else:
                mean, variance = global_mean_var(x, valid)
                x, std = (x - mean) * (variance + EPSILON).rsqrt(), variance.sqrt().mean()
        return x, global_mean_var(x, valid)[1].sqrt().mean() if std is None else std

    def loss_of(
        self, predicted: Float[Tensor, "B M T E"], target: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None
    ) -> Float[Tensor, ""]:
        """Compute the loss on features plus, with a pixel loss, the weighted loss on pixels."""
        features, pixels = self.split_features_pixels(predicted)
        target_features, target_pixels = self.split_features_pixels(target)
        loss = self.loss(features, target_features, self.subsample(valid))
        if self.config.pixel_loss_weight:
            loss = loss + self.config.pixel_loss_weight * self.loss(pixels, target_pixels, valid)
        return loss

    def split_features_pixels(
        self, x: Float[Tensor, "B M T E"]
    ) -> tuple[Float[Tensor, "B M t D"], Float[Tensor, "B M T P"]]:
        """Split into features, at every `target_stride`-th token, and pixels (width 0 without a pixel loss)."""
        width = self.modality.token_dim if self.config.pixel_loss_weight else 0
        features, pixels = x.split([x.shape[-1] - width, width], -1)
        return features[..., :: self.config.target_stride, :], pixels

    def subsample(self, valid: Bool[Tensor, "B M T"] | None) -> Bool[Tensor, "B M t"] | None:
        """Keep every `target_stride`-th target token, as in the feature loss."""
        return None if valid is None else valid[..., :: self.config.target_stride]

    def mean_target(
        self, targets: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None
    ) -> Float[Tensor, "B M T E"]:
        """Return the mean target at every token: the prediction of a model that ignores its input."""
        return mean_target(targets[:, :, :: self.config.target_stride], self.subsample(valid)).expand_as(targets)


def draws_one_block(data: Modality, masks: Any) -> bool:
    """Return whether a sample has one mask with one target block, as far as the settings tell."""
    return masks.masks_per_sample == 1 and {blocks for _, blocks, _ in masks.shapes(data.layout)} <= {1}
