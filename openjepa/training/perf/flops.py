"""Count the floating-point operations of a training step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from openjepa.core.protocols import Modality
from openjepa.core.types import Masks
from openjepa.methods.decoder import Decoder
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.methods.vicreg import VICReg

Method = JEPA | MAE | VICReg | Decoder

MaskShape = tuple[int, int, int]  # of one mask: context tokens, target blocks, tokens in a block


class StepFlops(NamedTuple):
    """FLOPs of a training step, for one sample."""

    target: int  # the target encoder, forward
    context: int  # the context encoder, forward and backward
    predictor: int  # forward and backward

    @property
    def total(self) -> int:
        return self.target + self.context + self.predictor


def count_flops(method: Method, data: Modality, masks: Iterable[MaskShape]) -> StepFlops:
    """Return the FLOPs of one sample under these masks, which share one forward pass of the target encoder."""
    masks, grid_tokens = list(masks), data.layout.count
    if isinstance(method, VICReg):
        tokens = masks[0][0] if method.masked else grid_tokens
        return StepFlops(0, 2 * 3 * encoder_flops(method, data, tokens), 2 * 3 * expander_flops(method))
    if isinstance(method, Decoder):
        return decoder_flops(method, data, masks[0])
    target = context = predictor = 0
    if isinstance(method, JEPA):
        target_tokens = masks[0][1] * len(range(0, masks[0][2], method.target_stride))
        input_tokens = target_tokens if method.target_input == "targets_only" else grid_tokens
        target = encoder_flops(method, data, input_tokens)
    for context_size, blocks, target_size in masks:
        context += 3 * encoder_flops(method, data, context_size)
        predictor += 3 * predictor_flops(method, data, context_size, blocks, target_size)
    return StepFlops(target, context, predictor)


def encoder_flops(method: Method, data: Modality, tokens: int) -> int:
    """Return the forward FLOPs of the stem and the blocks on one sequence."""
    stem = tokens * data.tokenizer_flops(method.dim)
    return stem + transformer_flops(method.depth, method.dim, method.registers + tokens, method.mlp_ratio)


def predictor_flops(method: JEPA | MAE, data: Modality, context_size: int, blocks: int, target_size: int) -> int:
    """Return the predictor's forward FLOPs for one mask.

    Each target block is a sequence with the whole context; with a shared context, all blocks form one sequence.
    """
    output, depth, dim = data.token_dim, method.predictor_depth, method.predictor_dim
    if isinstance(method, JEPA):
        levels = len(method.target_layers) if method.target_join == "concat" else 1
        output = method.dim * levels + (data.token_dim if method.pixel_loss_weight else 0)
    into, out = 2 * context_size * method.dim * dim, 2 * blocks * target_size * dim * output
    if isinstance(method, JEPA) and method.predictor_context == "shared":
        # only the pairs that may attend to each other; masked pairs do not count as work
        pairs = context_size**2 + blocks * target_size * (context_size + target_size)
        return into + transformer_flops(depth, dim, context_size + blocks * target_size, pairs=pairs) + out
    return into + blocks * transformer_flops(depth, dim, context_size + target_size) + out


def decoder_flops(method: Decoder, data: Modality, mask: MaskShape) -> StepFlops:
    """Return the FLOPs of the decoder, forward and backward, and of the frozen networks that condition it, forward."""
    grid_tokens, (context_size, _, target_size) = data.layout.count, mask
    predicts, dim = method.condition == "prediction", method.decoder_dim
    tokens = target_size if predicts else grid_tokens
    frozen = encoder_flops(method, data, context_size if predicts else grid_tokens)
    frozen += predictor_flops(method, data, context_size, 1, target_size) if predicts else 0
    decoder = 4 * tokens * data.token_dim * dim + transformer_flops(method.decoder_depth, dim, tokens)
    return StepFlops(frozen, 0, 3 * decoder)


def expander_flops(method: VICReg) -> int:
    """Return the FLOPs of one vector through the expander and of its share of the output's covariance matrix."""
    wide = method.predictor_dim
    return 2 * wide * (method.dim + method.predictor_depth * wide)


def transformer_flops(depth: int, dim: int, tokens: int, mlp_ratio: float = 4.0, pairs: int = 0) -> int:
    """Return the forward FLOPs of `depth` blocks on one sequence, with `pairs` of attending tokens (0: all pairs).

    Counts the matmuls: queries, keys, values, attention, projection and the two layers of the MLP.
    """
    return depth * (tokens * dim * (8 * dim + 4 * int(dim * mlp_ratio)) + 4 * (pairs or tokens**2) * dim)


def mask_shapes(masks: tuple[Masks, ...]) -> list[MaskShape]:
    """Return the shape of each mask of a step."""
    return [(mask.context.shape[1], mask.target.shape[1], mask.target.shape[2]) for mask in masks]
