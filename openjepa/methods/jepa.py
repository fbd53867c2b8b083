"""Masked JEPA with an EMA target encoder: I-JEPA (Assran et al., CVPR 2023, arXiv 2301.08243).

B batch  N tokens  D encoder width  E target width  M target blocks  T tokens per block  K tokens into the EMA encoder
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Masks, Output, Tokens
from openjepa.masking.stack import stack_masks
from openjepa.methods.base import BaseMethod, MethodConfig
from openjepa.nn.ema import update_ema
from openjepa.nn.init import Init, initialize, scale_stem
from openjepa.nn.losses import LOSSES
from openjepa.nn.positions import Positions
from openjepa.nn.predictor import Predictor
from openjepa.nn.regularizers import sigreg
from openjepa.nn.target_transforms import global_mean_var, normalize_patches, zca_whiten
from openjepa.nn.vit import ViT

SIGREG_SLICES = 256  # random directions along which SIGReg compares distributions

EPSILON = 1e-4  # added to the variance before targets are standardized


class Targets(NamedTuple):
    """What the predictor has to match, computed by the EMA encoder without gradient."""

    x: Float[Tensor, "B N E"]  # per token: features, then (with a pixel loss) pixels; 0 where nothing is predicted
    features: Float[Tensor, "B D"]  # the EMA encoder's output, mean over tokens
    std: Float[Tensor, ""]  # standard deviation of a feature over all tokens before standardizing, mean over features


@dataclass(frozen=True)
class JEPA(MethodConfig):
    """I-JEPA: predict the EMA encoder's features of target blocks from a context block.

    L = mean over blocks of d(predictor(encoder(context), positions), LayerNorm(ema_encoder(image))[block])

    Source: Assran et al., CVPR 2023, arXiv 2301.08243, section 3.

    Differs: masks include the last row and column, which the official sampler never draws (see --masks.sampler).
    Additions to the paper, off in the paper: rope, registers, scaled init, and all settings after the loss.
    Targets are normalized per layer, joined, centered, standardized, whitened, in this order.
    """

    dim: int = 384  # width of the encoder: 192 ViT-Ti, 384 ViT-S, 768 ViT-B, 1024 ViT-L, 1280 ViT-H
    depth: int = 12  # number of transformer blocks of the encoder
    num_heads: int = 6  # attention heads of the encoder; must divide dim (usually dim / 64)
    mlp_ratio: float = 4.0  # hidden width of the MLPs, as a multiple of dim
    predictor_dim: int = 384  # width of the predictor; less than dim makes it a bottleneck (the small recipes: dim / 2)
    predictor_depth: int = 6  # number of transformer blocks of the predictor; paper: 6 for ViT-B, 12 for ViT-L and H
    predictor_heads: int = 0  # attention heads of the predictor; 0: num_heads, as in the official code
    # each: context and mask tokens go through the predictor once per target block (paper); shared: the context goes
    # through once, and mask tokens attend to it but not it to them: faster with several blocks
    predictor_context: Literal["each", "shared"] = "each"
    # sincos: fixed embedding added to the tokens (official code); rope: rotary embedding in every attention layer
    positions: Positions = "sincos"
    registers: int = 0  # extra learned tokens without a position in the encoder; 0 as in the paper
    # weight matrices. paper: std 0.02; scaled: std sqrt(2 / (fan_in + fan_out)), better for narrow encoders, short runs
    init: Init = "paper"
    # patch embedding. paper: std 0.02; scaled: whitened patches give tokens of unit variance, better for small patches
    stem_init: Literal["paper", "scaled"] = "paper"
    # between predictions and targets. smooth_l1: official code; squared_l2: the paper's text; cosine: 1 - cosine
    loss: Literal["smooth_l1", "squared_l2", "cosine"] = "smooth_l1"
    # what the EMA encoder sees. whole: the image (paper); targets_only: the target tokens alone, which is faster and
    # keeps the context out of the targets; only with one target block and one mask per image
    target_input: Literal["whole", "targets_only"] = "whole"
    # layers of the EMA encoder whose outputs, after its final norm, are the targets: 0: the first, -1: the last (paper)
    target_layers: tuple[int, ...] = (-1,)
    target_join: Literal["average", "concat"] = "average"  # how several target_layers are combined
    center: bool = False  # subtract from an image's targets their mean over the tokens that the EMA encoder saw
    # scale each target feature to mean 0, variance 1 over the global batch; keeps small runs from collapsing
    standardize: bool = False
    # compute the feature loss at every n-th target token only, which saves time; 1: at all target tokens. The pixel
    # loss uses all of them
    target_stride: int = 1
    # ZCA whitening of the targets: principal deviations are raised to 1 - whiten; 0: off; 1: all variances become 1
    whiten: float = 0.0
    # weight of SIGReg, an anti-collapse term on the context encoder's mean token; 0: off; not with --accumulate
    sigreg_weight: float = 0.0
    # weight of an auxiliary loss on the normalized pixels of the target patches; 0: off; 1 stabilizes short runs
    pixel_loss_weight: float = 0.0

    @property
    def whole_batch(self) -> bool:  # type: ignore[override]
        """Return whether the loss compares samples, so that a batch cannot be split into micro-batches."""
        return self.sigreg_weight > 0

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the targets exist in the encoder and fit the masks."""
        super().check(data, masks)
        depth, layers = self.depth, self.target_layers
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
        blocks = {shape[1] for shape in masks.shapes(data.layout)} if self.target_input == "targets_only" else {1}
        if blocks != {1} or (self.target_input == "targets_only" and masks.masks_per_sample > 1):
            raise UserError(
                "--method.target-input targets_only requires a single target block per sample: "
                "try --masks random --masks.masks-per-sample 1, or --method.target-input whole"
            )

    def build(self, modality: Modality, seed: int = 0) -> MaskedJEPA:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return MaskedJEPA(self, modality, torch.Generator().manual_seed(seed))

    def encoder(self, modality: Modality) -> ViT:
        """Build the encoder alone, to load weights into: it has torch's default initialization."""
        sizes = self.dim, self.depth, self.num_heads, self.mlp_ratio, self.positions, self.registers
        return ViT(modality.tokenizer(self.dim), *sizes)

    def predictor(self, modality: Modality) -> Predictor:
        """Build the predictor alone, with torch's default initialization."""
        feature_dim = self.dim * (len(self.target_layers) if self.target_join == "concat" else 1)
        pixel_dim = modality.token_dim if self.pixel_loss_weight else 0
        return Predictor(
            self.dim,
            feature_dim + pixel_dim,
            self.predictor_dim,
            self.predictor_depth,
            self.predictor_heads or self.num_heads,
            positions=self.positions,
            context_mode=self.predictor_context,
        )


class MaskedJEPA(BaseMethod):
    """Networks and loss of a `JEPA` config: context encoder, predictor, and the context encoder's EMA as the target."""

    def __init__(self, config: JEPA, modality: Modality, generator: torch.Generator):
        super().__init__()
        self.config = config
        self.modality = modality
        self.loss = LOSSES[config.loss]
        self.context_encoder = config.encoder(modality)
        self.predictor = config.predictor(modality)
        initialize(self.context_encoder, generator, config.init)
        initialize(self.predictor, generator, config.init)
        if config.stem_init == "scaled":
            scale_stem(self.context_encoder.patch_embed, modality.token_dim)
        self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Encode the image with the EMA encoder and normalize the features; append pixels if there is a pixel loss."""
        tokens = self.modality.tokens(batch.views[0])
        index = self.target_index(batch.masks) if self.config.target_input == "targets_only" else None
        encoder_input = tokens if index is None else tokens.take(index)
        *layers, output = self.target_encoder(encoder_input, layers=(*self.config.target_layers, -1))
        x, std = self.normalize_features(self.join_layers(layers))
        if index is not None:  # back to one row per token of the image
            x = x.new_zeros(*tokens.x.shape[:2], x.shape[-1]).scatter(1, index[..., None].expand_as(x), x)
        if self.config.pixel_loss_weight:
            x = torch.cat([x, normalize_patches(tokens.x)], -1)
        return Targets(x, output.x.float().mean(1), std)

    def forward(self, batch: Batch, targets: Targets) -> Output:
        """Compute the loss of predicting every target block from its context (paper, section 3).

        `relative_loss` divides by the loss of predicting the mean target: 1 is no better than a constant.
        """
        tokens = self.modality.tokens(batch.views[0])
        losses, mean_losses, features = [], [], []
        for masked in stack_masks(tokens, targets.x, batch.masks):
            (context,) = self.context_encoder(tokens, masked.keep)
            predicted = self.predictor(context, where=masked.where)
            losses.append(self.loss_of(predicted, masked.targets, masked.valid))
            mean_losses.append(self.loss_of(self.mean_target(masked.targets), masked.targets, masked.valid))
            features.append(context.mean())
        loss, mean_loss = torch.stack(losses).mean(), torch.stack(mean_losses).mean()
        metrics = {"mean_target_loss": mean_loss, "relative_loss": loss.detach() / mean_loss, "target_std": targets.std}
        if self.config.sigreg_weight:
            slices = torch.Generator().manual_seed(int(batch.index[0]))  # waits for the device, once per step
            loss = loss + self.config.sigreg_weight * sigreg(torch.cat(features), SIGREG_SLICES, slices)
        return Output(loss, metrics, targets.features)

    @torch.no_grad()
    def after_step(self, momentum: float, step_taken: Tensor | None = None) -> None:
        """Move the target encoder towards the context encoder that the optimizer just updated (EMA)."""
        update_ema(self.target_encoder, self.context_encoder, momentum, step_taken)

    def encoders(self) -> dict[str, nn.Module]:
        """Return the EMA encoder, which the paper evaluates, and the context encoder."""
        return {"target": self.target_encoder, "context": self.context_encoder}

    def target_index(self, masks: tuple[Masks, ...]) -> Int[Tensor, "B K"]:
        """Return the indices of the tokens whose features are predicted: every `target_stride`-th target token."""
        return masks[0].target[..., :: self.config.target_stride].flatten(1)

    def join_layers(self, layers: list[Tokens]) -> Float[Tensor, "B K E"]:
        """Apply LayerNorm (no affine) to each layer's tokens, then average or concatenate the layers.

        The LayerNorm comes from the official code; the paper does not mention it.
        """
        normalized = [F.layer_norm(tokens.x.float(), tokens.x.shape[-1:]) for tokens in layers]
        return torch.stack(normalized).mean(0) if self.config.target_join == "average" else torch.cat(normalized, -1)

    def normalize_features(self, x: Float[Tensor, "B K E"]) -> tuple[Float[Tensor, "B K E"], Float[Tensor, ""]]:
        """Center, standardize and whiten as configured; also return the mean std before standardizing."""
        if self.config.center:
            x = x - x.mean(1, keepdim=True)
        mean, variance = global_mean_var(x)
        if self.config.standardize:
            x = (x - mean) * (variance + EPSILON).rsqrt()
        if self.config.whiten:
            x = zca_whiten(x if self.config.standardize else x - mean, self.config.whiten)
        return x, variance.sqrt().mean()

    def loss_of(
        self, predicted: Float[Tensor, "B M T E"], target: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None
    ) -> Float[Tensor, ""]:
        """Compute the loss on features plus, with a pixel loss, the weighted loss on pixels."""
        features, pixels = self.split_features_pixels(predicted)
        target_features, target_pixels = self.split_features_pixels(target)
        loss = self.loss(features, target_features, None if valid is None else valid[..., :: self.config.target_stride])
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

    def mean_target(self, targets: Float[Tensor, "B M T E"]) -> Float[Tensor, "B M T E"]:
        """Return the mean target at every token: the prediction of a model that ignores its input."""
        return targets[:, :, :: self.config.target_stride].mean((0, 1, 2)).expand_as(targets)
