"""Masked JEPA with an averaged target encoder: I-JEPA (Assran et al., CVPR 2023, arXiv 2301.08243).

B batch  N tokens  D width  E target width  M blocks  T tokens per block
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openjepa.core.distributed import local_shards
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Masks, Output
from openjepa.masking.stack import stack_masks
from openjepa.nn.init import Init, initialize, scale_stem
from openjepa.nn.losses import LOSSES
from openjepa.nn.positions import Positions
from openjepa.nn.predictor import Predictor
from openjepa.nn.regularizers import sigreg
from openjepa.nn.target_transforms import global_mean_var, normalize_patches, zca_whiten
from openjepa.nn.vit import ViT

SIGREG_SLICES = 256  # directions that SIGReg looks along

EPSILON = 1e-4  # added to the variance that targets are standardised by


class Targets(NamedTuple):
    """What the averaged encoder sees."""

    x: Float[Tensor, "B N E"]  # what the predictor is asked for, 0 where it never is; where pixels are, they come last
    features: Float[Tensor, "B D"]  # the encoder's output, mean over tokens
    std: Float[Tensor, ""]  # spread of a feature over the batch's tokens before standardising, mean over features


@dataclass(frozen=True)
class JEPA:
    """The networks and the objective. Defaults are the paper's for ViT-S; sizes of the family are in `encoder.SIZES`."""

    dim: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float = 4.0
    predictor_dim: int = 384
    predictor_depth: int = 6
    predictor_heads: int = 0  # 0: as many as the encoder, as released
    predictor_context: Literal["each", "shared"] = "each"  # beside every block as in the paper, or once for all
    positions: Positions = "sincos"  # added to tokens as released, or rotary in every attention; see docs/study.md
    registers: int = 0  # tokens of the encoder that belong to no place
    init: Init = "paper"  # of matrices: deviation 0.02, or by their size
    stem_init: Literal["paper", "scaled"] = "paper"  # deviation 0.02, or such that whitened input gives unit tokens
    loss: Literal["smooth_l1", "squared_l2", "cosine"] = "smooth_l1"
    target_input: Literal["whole", "targets_only"] = (
        "whole"  # the sample, as in the paper, or only the places asked for
    )
    target_layers: tuple[int, ...] = (-1,)  # blocks of the target encoder, from 0, or from the end; -1 is its output
    target_join: Literal["average", "concat"] = "average"  # several layers: averaged, or predicted side by side
    center: bool = False  # targets less their mean over a sample: what its tokens share is not asked for
    standardize: bool = False  # each target feature to mean 0, variance 1 over all tokens seen of the global batch
    target_stride: int = 1  # features are asked for at every n-th of the places asked for, pixels at all of them
    whiten: float = 0.0  # then directions of target space by this power: 0 as they are, 1 all of variance 1
    sigreg_weight: float = 0.0  # weight of SIGReg on the context encoder's output, mean over tokens
    pixel_loss_weight: float = (
        0.0  # weight of a second loss, on the hidden patches' own numbers: a target that stands still
    )

    @property
    def whole_batch(self) -> bool:
        """Whether the loss is more than a mean over samples, so that a batch cannot be taken in parts."""
        return self.sigreg_weight > 0

    def build(self, modality: Modality, seed: int = 0) -> MaskedJEPA:
        """The method with freshly initialised weights; a function of the seed."""
        return MaskedJEPA(self, modality, torch.Generator().manual_seed(seed))

    def encoder(self, modality: Modality) -> ViT:
        """The encoder alone, its weights as torch makes them: to be loaded."""
        shape = self.dim, self.depth, self.num_heads, self.mlp_ratio, self.positions, self.registers
        return ViT(modality.tokenizer(self.dim), *shape)

    def predictor(self, modality: Modality) -> Predictor:
        width = self.dim * (len(self.target_layers) if self.target_join == "concat" else 1)
        width += modality.token_dim if self.pixel_loss_weight else 0
        heads = self.predictor_heads or self.num_heads
        return Predictor(
            self.dim,
            width,
            self.predictor_dim,
            self.predictor_depth,
            heads,
            positions=self.positions,
            context=self.predictor_context,
        )


class MaskedJEPA(nn.Module):
    """Context encoder, predictor, and a target encoder that follows the context encoder."""

    num_views = 1

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
    def targets(self, batch: Batch, masks: tuple[Masks, ...]) -> Targets:
        """What the averaged encoder sees of each sample, feature LayerNorm (no affine) on every token.

        The LayerNorm is the released code's, not in the paper. Hidden layers are normed alike, then averaged or joined.
        Where the places asked for are all that is seen, that is cheaper, and nothing shown can find its way into a target.
        """
        whole, layers = self.modality.tokens(batch.views[0]), self.config.target_layers
        sparse = masks[0].target[..., :: self.config.target_stride].flatten(1)
        places = sparse if self.config.target_input == "targets_only" else None
        *seen, output = self.target_encoder(whole if places is None else whole.take(places), (*layers, -1))
        levels = [F.layer_norm(tokens.x.float(), tokens.x.shape[-1:]) for tokens in seen]
        x = torch.stack(levels).mean(0) if self.config.target_join == "average" else torch.cat(levels, -1)
        if self.config.center:
            x = x - x.mean(1, keepdim=True)

        mean, variance = global_mean_var(x)
        if self.config.standardize:
            x = (x - mean) * (variance + EPSILON).rsqrt()
        if self.config.whiten:
            x = zca_whiten(x if self.config.standardize else x - mean, self.config.whiten)
        if places is not None:
            x = x.new_zeros(*whole.x.shape[:2], x.shape[-1]).scatter(1, places[..., None].expand_as(x), x)
        if self.config.pixel_loss_weight:
            x = torch.cat([x, normalize_patches(whole.x)], -1)
        return Targets(x, output.x.float().mean(1), variance.sqrt().mean())

    def forward(self, batch: Batch, masks: tuple[Masks, ...], targets: Targets) -> Output:
        """The loss of predicting each target block from the context (paper, section 3)."""
        tokens = self.modality.tokens(batch.views[0])
        losses, references, features = [], [], []
        for each in stack_masks(tokens, targets.x, masks):
            (context,) = self.context_encoder(each.context)
            features.append(context.mean())
            predicted = self.predictor(context, where=each.where)
            losses.append(self.loss_of(predicted, each.targets, each.valid))
            mean = each.targets[:, :, :: self.config.target_stride].mean((0, 1, 2)).expand_as(each.targets)
            references.append(self.loss_of(mean, each.targets, each.valid))
        loss, reference = torch.stack(losses).mean(), torch.stack(references).mean()
        metrics = {"mean_target_loss": reference, "relative_loss": loss.detach() / reference, "target_std": targets.std}
        if self.config.sigreg_weight:
            slices = torch.Generator().manual_seed(int(batch.index[0]))  # waits for the device, once a step
            loss = loss + self.config.sigreg_weight * sigreg(torch.cat(features), SIGREG_SLICES, slices)
        return Output(loss, metrics, targets.features)

    def loss_of(
        self, predicted: Float[Tensor, "B M T E"], asked: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None
    ) -> Float[Tensor, ""]:
        """The loss on features, and, weighted, on pixels if they are asked for."""
        (features, pixels), (wanted, numbers) = self.split_features_pixels(predicted), self.split_features_pixels(asked)
        loss = self.loss(features, wanted, None if valid is None else valid[..., :: self.config.target_stride])
        return (
            loss + self.config.pixel_loss_weight * self.loss(pixels, numbers, valid)
            if self.config.pixel_loss_weight
            else loss
        )

    def split_features_pixels(
        self, x: Float[Tensor, "B M T E"]
    ) -> tuple[Float[Tensor, "B M t D"], Float[Tensor, "B M T P"]]:
        """Features, at the places where they are asked for, and pixels."""
        width = self.modality.token_dim if self.config.pixel_loss_weight else 0
        features, pixels = x.split([x.shape[-1] - width, width], -1)
        return features[..., :: self.config.target_stride, :], pixels

    @torch.no_grad()
    def after_step(self, momentum: float, taken: Tensor | None = None) -> None:
        """target ← momentum · target + (1 - momentum) · context, with the context encoder just updated.

        Nothing moves where `taken`, a flag on the device, says that the optimiser's step was not taken.
        """
        following, leading = (
            local_shards(self.target_encoder.parameters()),
            local_shards(self.context_encoder.parameters()),
        )
        if taken is None:
            torch._foreach_lerp_(following, leading, 1.0 - momentum)  # pyright: ignore
        else:
            pace = torch.where(taken, 1.0 - momentum, 0.0)
            torch._foreach_lerp_(following, leading, [pace] * len(following))  # pyright: ignore

    def encoder(self, which: str = "target") -> ViT:
        """The network to evaluate: "target" as in the paper, or "context"."""
        return {"target": self.target_encoder, "context": self.context_encoder}[which]
