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

MaskShape = tuple[int, int, int]  # of one mask: tokens shown, blocks asked for, tokens in each


class StepFlops(NamedTuple):
    """For one sample of a step."""

    target: int  # the target encoder, forward
    context: int  # the context encoder, forward and backward
    predictor: int  # forward and backward

    @property
    def total(self) -> int:
        return self.target + self.context + self.predictor


def count_flops(method: Method, data: Modality, masks: Iterable[MaskShape]) -> StepFlops:
    """What one sample costs under these masks, which share a pass of the target encoder."""
    masks, whole = list(masks), data.grid[0] * data.grid[1]
    if isinstance(method, VICReg):
        tokens = masks[0][0] if method.masked else whole
        return StepFlops(0, 2 * 3 * encoder_flops(method, data, tokens), 2 * 3 * expander_flops(method))
    if isinstance(method, Decoder):
        return decoder_flops(method, data, masks[0])
    target = context = predictor = 0
    if isinstance(method, JEPA):
        asked = masks[0][1] * len(range(0, masks[0][2], method.target_stride))
        seen = asked if method.target_input == "targets_only" else whole
        target = encoder_flops(method, data, seen)
    for shown, blocks, asked in masks:
        context += 3 * encoder_flops(method, data, shown)
        predictor += 3 * predictor_flops(method, data, shown, blocks, asked)
    return StepFlops(target, context, predictor)


def encoder_flops(method: Method, data: Modality, tokens: int) -> int:
    """The stem and the blocks on one sequence."""
    stem = tokens * data.tokenizer_flops(method.dim)
    return stem + transformer_flops(method.depth, method.dim, method.registers + tokens, method.mlp_ratio)


def predictor_flops(method: JEPA | MAE, data: Modality, shown: int, blocks: int, asked: int) -> int:
    """Every target block is a sequence of its own, with all that is shown; or one of all, if they share their context."""
    output, depth, dim = data.token_dim, method.predictor_depth, method.predictor_dim
    if isinstance(method, JEPA):
        levels = len(method.target_layers) if method.target_join == "concat" else 1
        output = method.dim * levels + (data.token_dim if method.pixel_loss_weight else 0)
    into, out = 2 * shown * method.dim * dim, 2 * blocks * asked * dim * output
    if isinstance(method, JEPA) and method.predictor_context == "shared":
        pairs = shown**2 + blocks * asked * (shown + asked)  # that may attend; those that may not are no work
        return into + transformer_flops(depth, dim, shown + blocks * asked, pairs=pairs) + out
    return into + blocks * transformer_flops(depth, dim, shown + asked) + out


def decoder_flops(method: Decoder, data: Modality, mask: MaskShape) -> StepFlops:
    """The drawer, forward and backward, and the frozen networks that say what to draw, forward."""
    whole, (shown, _, asked) = data.grid[0] * data.grid[1], mask
    predicts, dim = method.condition == "prediction", method.decoder_dim
    tokens = asked if predicts else whole
    frozen = encoder_flops(method, data, shown if predicts else whole)
    frozen += predictor_flops(method, data, shown, 1, asked) if predicts else 0
    drawn = 4 * tokens * data.token_dim * dim + transformer_flops(method.decoder_depth, dim, tokens)
    return StepFlops(frozen, 0, 3 * drawn)


def expander_flops(method: VICReg) -> int:
    """One vector through the expander, and its part of the covariances of what comes out."""
    wide = method.predictor_dim
    return 2 * wide * (method.dim + method.predictor_depth * wide)


def transformer_flops(depth: int, dim: int, tokens: int, mlp_ratio: float = 4.0, pairs: int = 0) -> int:
    """Blocks on one sequence, forward: queries, keys, values, attention of so many pairs (0: all), projection, two layers."""
    return depth * (tokens * dim * (8 * dim + 4 * int(dim * mlp_ratio)) + 4 * (pairs or tokens**2) * dim)


def mask_shapes(masks: tuple[Masks, ...]) -> list[MaskShape]:
    """Those of a step's masks."""
    return [(mask.context.shape[1], mask.target.shape[1], mask.target.shape[2]) for mask in masks]
