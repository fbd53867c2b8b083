"""Count the forward FLOPs of transformers: multiplications plus additions of their matmuls, for one sample."""

from __future__ import annotations

from openjepa.core.capabilities import CountsFlops
from openjepa.core.protocols import Modality
from openjepa.core.types import MaskShape
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig


def transformer_flops(depth: int, dim: int, tokens: int, mlp_ratio: float = 4.0) -> int:
    """Return the FLOPs of `depth` blocks on one sequence.

    Counts the matmuls: queries, keys, values, attention, projection and the two layers of the MLP.
    """
    return depth * (tokens * dim * (8 * dim + 4 * int(dim * mlp_ratio)) + 4 * tokens**2 * dim)


def vit_flops(encoder: ViTConfig, data: Modality, tokens: int) -> int:
    """Return the FLOPs of the tokenizer and the blocks on one sequence; a tokenizer that is not counted adds 0."""
    tokenizer = tokens * data.tokenizer_flops(encoder.dim) if isinstance(data, CountsFlops) else 0
    return tokenizer + transformer_flops(encoder.depth, encoder.dim, tokens, encoder.mlp_ratio)


def predictor_flops(predictor: PredictorConfig, input_dim: int, output_dim: int, mask: MaskShape) -> int:
    """Return the FLOPs for one mask: each target block is a sequence with the whole context."""
    context, blocks, block_tokens = mask
    projections = 2 * context * input_dim * predictor.dim + 2 * blocks * block_tokens * predictor.dim * output_dim
    return projections + blocks * transformer_flops(predictor.depth, predictor.dim, context + block_tokens)
