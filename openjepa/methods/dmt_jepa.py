"""DMT-JEPA: discriminative masked targets, aggregated from similar neighbors (arXiv 2405.17995).

B batch  N tokens  D encoder width
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, MaskShape, Output, StepFlops
from openjepa.masking.stack import stack_masks
from openjepa.methods.masked import MaskedConfig, MaskedPrediction, Targets, compare, masked_output
from openjepa.nn.aggregation import AggregationHead, grid_neighbors, most_similar
from openjepa.nn.ema import update_ema
from openjepa.nn.init import initialize
from openjepa.nn.losses import smooth_l1


@dataclass(frozen=True)
class DMTJEPA(MaskedConfig):
    """DMT-JEPA: predict, for each hidden patch, a summary of its most similar neighbors.

    h = LayerNorm(ema_encoder(image));  target_i = ema_head(mean h; the neighbors of h_i most similar to it)
    L = mean over blocks of d(predictor(head(encoder(context)), positions), target[block])

    Source: Mo and Yun, 2024, arXiv 2405.17995, section 3.

    Differs: neighborhoods end at the border of the grid, where the official code wraps around.
    """

    neighbors: int = 4  # of the up to eight around a patch, those most similar to it
    head_depth: int = 2  # cross-attention blocks of the head

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the data are grids with two axes, and patches have so many neighbors."""
        super().check(data, masks)
        shape = data.layout.shape
        if shape is None or len(shape) != 2 or min(shape) < 2:
            raise UserError(
                "dmt-jepa compares patches with those around them, so it requires images: try --method jepa"
            )
        if not 1 <= self.neighbors <= 8:
            raise UserError(f"--method.neighbors must be 1 to 8, got {self.neighbors}: try --method.neighbors 4")

    def build(self, modality: Modality, seed: int = 0) -> NeighborJEPA:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return NeighborJEPA(self, modality, torch.Generator().manual_seed(seed))

    def cost(self, data: Modality, masks: Iterable[MaskShape]) -> StepFlops:
        """Return the FLOPs of one sample: those of I-JEPA, and of the head, whose attention is not counted."""
        masks, dim, tokens = list(masks), self.encoder.dim, data.layout.count
        linear = 2 * dim * dim * self.head_depth
        on_targets = (
            linear * tokens * (2 + 2 + 1 + 1 + 8)
        )  # keys and values of tokens and queries, query, projection, MLP
        on_context = 3 * linear * sum(2 * context + 12 for context, _, _ in masks)
        cost = super().cost(data, masks)
        return cost._replace(target=cost.target + on_targets, context=cost.context + on_context)


class NeighborJEPA(MaskedPrediction):
    """Networks and loss of a `DMTJEPA` config: those of I-JEPA, and an aggregation head with its EMA."""

    def __init__(self, config: DMTJEPA, modality: Modality, generator: torch.Generator):
        super().__init__(config, modality, generator)
        self.config = config
        self.head = AggregationHead(config.encoder.dim, config.encoder.num_heads, config.head_depth)
        initialize(self.head, generator, config.encoder.init)
        self.target_head = copy.deepcopy(self.head).requires_grad_(False)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Encode the image with the EMA encoder and summarize the similar neighbors of each patch (section 3.2)."""
        tokens = self.modality.tokens(batch.views[0])
        *layers, output = self.target_encoder(tokens, layers=(*self.target_layers, -1))
        features = self.average_layers(layers)
        assert self.modality.layout.shape is not None
        neighbors = most_similar(features, grid_neighbors(*self.modality.layout.shape), self.config.neighbors)
        x, std = self.transform(self.target_head.aggregate_neighbors(features, neighbors).float(), output.valid)
        return Targets(x, output.mean(), std)

    def forward(self, batch: Batch, targets: Targets) -> Output:
        """Compute the loss of predicting every target block from its aggregated context (section 3.3)."""
        tokens = self.modality.tokens(batch.views[0])
        losses = []
        for masked in stack_masks(tokens, targets.x, batch.masks):
            (context,) = self.context_encoder(tokens, masked.keep)
            context = self.head.aggregate_context(context)
            predicted = self.predictor(context, masked.where, valid=masked.valid, mask_sets=masked.mask_sets)
            losses.append(compare(smooth_l1, predicted, masked))
        return masked_output(losses, targets)

    @torch.no_grad()
    def after_step(self, momentum: float, step_taken: Tensor | None = None) -> None:
        """Move the target encoder and the target head towards those that the optimizer just updated (EMA)."""
        super().after_step(momentum, step_taken)
        update_ema(self.target_head, self.head, momentum, step_taken)
