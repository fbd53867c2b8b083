"""Plug-in method: a JEPA with the options that the study tried and no recipe kept.

    jepa pretrain --plugin studies/small_data/jepa_variants.py --method jepa-variants --method.whiten 0.5 …

B batch  N tokens  R sequences  E width  D encoder width  M target blocks  T tokens per block
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openjepa.core.distributed import all_reduce_sum, gather_ranks
from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, MaskShape, Output, StepFlops, Tokens, zero_padding
from openjepa.masking.stack import stack_masks
from openjepa.methods.jepa import JEPA, MaskedJEPA
from openjepa.methods.masked import EPSILON, Targets, compare, masked_output
from openjepa.nn.flops import transformer_flops
from openjepa.nn.positions import rope_angles, sincos
from openjepa.nn.predictor import Predictor
from openjepa.nn.regularizers import sigreg
from openjepa.nn.target_transforms import center, global_mean_var, global_token_count
from openjepa.nn.vit import ViT

SIGREG_SLICES = 256  # random directions along which SIGReg compares distributions


@dataclass(frozen=True)
class JepaVariants(JEPA):
    """I-JEPA with registers, a predictor that sees the context once, other targets, or an anti-collapse term.

    The order of `target_transforms` has no effect here: targets are centered, standardized, whitened.
    """

    # learned tokens without a position in the encoder (Darcet et al., arXiv 2309.16588): all tokens attend to them, and
    # they are not returned
    registers: int = 0
    target_join: Literal["average", "concat"] = "average"  # how several target_layers are combined
    # each: context and mask tokens go through the predictor once per target block (paper); shared: the context goes
    # through once, and mask tokens attend to it but not it to them
    predictor_context: Literal["each", "shared"] = "each"
    # ZCA whitening of the targets: principal deviations are raised to 1 - whiten; 0: off; 1: all variances become 1
    whiten: float = 0.0
    sigreg_weight: float = 0.0  # weight of SIGReg on the context encoder's mean token; 0: off; not with --accumulate

    @property
    def whole_batch(self) -> bool:  # type: ignore[override]
        """Return whether the loss compares samples, so that a batch cannot be split into micro-batches."""
        return self.sigreg_weight > 0

    @property
    def target_dim(self) -> int:
        """Return the width of the features that are predicted."""
        return self.encoder.dim * (len(self.target_layers) if self.target_join == "concat" else 1)

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the settings fit the data and the masks."""
        super().check(data, masks)
        if self.registers < 0:
            raise UserError(f"--method.registers must be >= 0 (0 = no registers), got {self.registers}")

    def build(self, modality: Modality, seed: int = 0) -> VariantJEPA:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return VariantJEPA(self, modality, torch.Generator().manual_seed(seed))

    def build_encoder(self, modality: Modality, which: str = "") -> ViT:
        """Build an encoder alone, with torch's default initialization."""
        if not self.registers:
            return super().build_encoder(modality, which)
        sizes = self.encoder
        tokenizer = modality.tokenizer(sizes.dim)
        return RegisterViT(
            self.registers, tokenizer, sizes.dim, sizes.depth, sizes.num_heads, sizes.mlp_ratio, sizes.positions
        )

    def build_predictor(self, modality: Modality) -> Predictor:
        """Build the predictor alone, with torch's default initialization."""
        if self.predictor_context == "each":
            return super().build_predictor(modality)
        sizes, heads = self.predictor, self.predictor.num_heads or self.encoder.num_heads
        return SharedContextPredictor(
            self.encoder.dim,
            self.output_dim(modality),
            sizes.dim,
            sizes.depth,
            heads,
            positions=self.encoder.positions,
        )

    def cost(self, data: Modality, masks: Iterable[MaskShape]) -> StepFlops:
        """Return the FLOPs of one sample: registers are tokens, and a shared context is part of one sequence."""
        masks = list(masks)
        cost = super().cost(data, masks)
        if self.registers:
            whole = self.target_input == "whole"
            blocks, tokens = masks[0][1], len(range(0, masks[0][2], self.target_stride))
            target = self.register_flops(data.layout.count if whole else blocks * tokens)
            context = 3 * sum(self.register_flops(context) for context, _, _ in masks)
            cost = cost._replace(target=cost.target + target, context=cost.context + context)
        if self.predictor_context == "shared":
            cost = cost._replace(predictor=3 * sum(self.shared_flops(data, mask) for mask in masks))
        return cost

    def register_flops(self, tokens: int) -> int:
        """Return how much more the encoder computes for `tokens` tokens because of the registers."""
        sizes = self.encoder
        with_registers, without = (
            transformer_flops(sizes.depth, sizes.dim, count, sizes.mlp_ratio)
            for count in (tokens + self.registers, tokens)
        )
        return with_registers - without

    def shared_flops(self, data: Modality, mask: MaskShape) -> int:
        """Return the predictor's forward FLOPs: only pairs that may attend to each other count as work."""
        (context, blocks, block_tokens), sizes = mask, self.predictor
        tokens = context + blocks * block_tokens
        pairs = context**2 + blocks * block_tokens * (context + block_tokens)
        projections = context * self.encoder.dim + blocks * block_tokens * self.output_dim(data)
        masked_pairs = 4 * sizes.depth * (tokens**2 - pairs) * sizes.dim
        return 2 * sizes.dim * projections + transformer_flops(sizes.depth, sizes.dim, tokens) - masked_pairs


class VariantJEPA(MaskedJEPA):
    """Networks and loss of a `JepaVariants` config."""

    config: JepaVariants

    def average_layers(self, layers: list[Tokens]) -> Float[Tensor, "B K E"]:
        """Apply LayerNorm (no affine) to each layer's tokens, then average or concatenate the layers."""
        if self.config.target_join == "average":
            return super().average_layers(layers)
        return torch.cat([F.layer_norm(tokens.x.float(), tokens.x.shape[-1:]) for tokens in layers], -1)

    def transform(
        self, x: Float[Tensor, "B K E"], valid: Bool[Tensor, "B K"] | None
    ) -> tuple[Float[Tensor, "B K E"], Float[Tensor, ""]]:
        """Center, standardize and whiten as configured; also return the mean std before standardizing."""
        if not self.config.whiten:
            return super().transform(x, valid)
        if "center" in self.config.target_transforms:
            x = center(x, valid)
        mean, variance = global_mean_var(x, valid)
        standardizes = "standardize" in self.config.target_transforms
        x = (x - mean) * (variance + EPSILON).rsqrt() if standardizes else x - mean
        return zca_whiten(x, self.config.whiten, valid), variance.sqrt().mean()

    def forward(self, batch: Batch, targets: Targets) -> Output:
        """Compute the loss of JEPA plus, if configured, SIGReg on the context encoder's mean tokens."""
        if not self.config.sigreg_weight:
            return super().forward(batch, targets)
        tokens = self.modality.tokens(batch.views[0])
        losses, features = [], []
        for masked in stack_masks(tokens, targets.x, batch.masks):
            (context,) = self.context_encoder(tokens, masked.keep)
            predicted = self.predictor(context, where=masked.where, valid=masked.valid)
            mean = self.mean_target(masked.targets, masked.valid)
            losses.append(compare(self.loss_of, predicted, masked, mean))
            features.append(context.mean())
        output = masked_output(losses, targets)
        first = int(gather_ranks(batch.index)[0])  # the same on every rank; waits for the device, once per step
        slices = torch.Generator().manual_seed(first)
        distance = sigreg(gather_ranks(torch.cat(features)), SIGREG_SLICES, slices)
        return output._replace(loss=output.loss + self.config.sigreg_weight * distance)


class RegisterViT(ViT):
    """A ViT with learned tokens without a position before the others."""

    def __init__(self, registers: int, *arguments: Any):
        super().__init__(*arguments)
        self.reg_token = nn.Parameter(torch.zeros(1, registers, self.dim))

    def run_blocks(self, tokens: Tokens, depths: list[int]) -> dict[int, Tensor]:
        """Pass registers and tokens through the blocks; return the normalized tokens of those in `depths`."""
        (x, pos, valid, _), count = tokens, self.reg_token.shape[1]
        x = torch.cat([self.reg_token.expand(len(x), -1, -1).to(x.dtype), x], 1)
        valid = None if valid is None else F.pad(valid, (count, 0), value=True)
        outputs = super().run_blocks(Tokens(x, F.pad(pos, (0, 0, count, 0)), valid), depths)
        return {depth: output[:, count:] for depth, output in outputs.items()}


class SharedContextPredictor(Predictor):
    """A predictor for which all target blocks are one sequence.

    Queries attend to the context and to their own block, and the context attends to itself only, so it is computed
    once. Target blocks never see each other.
    """

    def forward(
        self,
        context: Tokens,
        where: Float[Tensor, "B M T P"],
        conditions: Float[Tensor, "B H A"] | None = None,
        valid: Bool[Tensor, "B M T"] | None = None,
        mask_sets: tuple[int, ...] = (0,),
    ) -> Float[Tensor, "B M T E"]:
        query_pos = where.flatten(1, 2)
        embedded = self.embed(context.x) + sincos(context.pos, self.dim)
        query = self.mask_tokens_of(len(where), 1, mask_sets) + sincos(query_pos, self.dim)
        rope = None
        if self.positions == "rope":
            rope = rope_angles(torch.cat([context.pos, query_pos], dim=1), self.head_dim)
        x = torch.cat([embedded, query.to(embedded.dtype)], dim=1)  # B C+M·T D
        attn_mask = shared_attention_mask(context, where, valid)
        for block in self.blocks:
            x = block(x, attn_mask, rope)
        return self.proj(self.norm(x[:, embedded.shape[1] :])).view(*where.shape[:3], -1)


def shared_attention_mask(
    context: Tokens, where: Float[Tensor, "B M T P"], valid: Bool[Tensor, "B M T"] | None
) -> Bool[Tensor, "#B N N"]:
    """Return which tokens each token of [context; queries] attends to."""
    num_context, (_, blocks, block_tokens, _) = context.x.shape[1], where.shape
    query_block = torch.arange(1, blocks + 1, device=where.device).repeat_interleave(block_tokens)
    block = torch.cat([query_block.new_zeros(num_context), query_block])  # 0 is the context
    attn_mask = ((block == 0) | (block == block[:, None]))[None]
    if context.valid is None and valid is None:
        return attn_mask
    in_context = context.x.new_ones(context.x.shape[:2], dtype=torch.bool) if context.valid is None else context.valid
    in_target = where.new_ones(where.shape[:3], dtype=torch.bool) if valid is None else valid
    return attn_mask & torch.cat([in_context, in_target.flatten(1)], dim=1)[:, None]


def zca_whiten(
    x: Float[Tensor, "B N E"], power: float, valid: Bool[Tensor, "B N"] | None = None
) -> Float[Tensor, "B N E"]:
    """Whiten centered targets (ZCA): raise the std of each principal direction to the power 1 - `power`.

    `power` is 1 for full whitening, 0 for none. The covariance is that of the valid tokens of the global batch, and
    everything is in fp32. Directions with less than a thousandth of the mean variance are scaled as if they had that
    much.
    """
    with torch.autocast(x.device.type, enabled=False):
        rows = zero_padding(x.float(), valid).flatten(0, 1)
        covariance = all_reduce_sum(rows.T @ rows) / global_token_count(x, valid)
        variance, axes = torch.linalg.eigh(covariance)
        variance = torch.maximum(variance, 1e-3 * variance.mean())
        return x.float() @ (axes * variance ** (-power / 2)) @ axes.T
