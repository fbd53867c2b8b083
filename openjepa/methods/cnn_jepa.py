"""CNN-JEPA: I-JEPA with a convolutional encoder and predictor (Kalapos and Gyires-Tóth, 2024, arXiv 2408.07514)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from openjepa.core.capabilities import PatchGrid
from openjepa.core.errors import UserError
from openjepa.core.protocols import Encoder, Modality
from openjepa.core.types import Batch, MaskShape, Output, StepFlops
from openjepa.masking.stack import stack_masks
from openjepa.methods.masked import MaskedPrediction, Targets, TargetsConfig, compare, masked_output
from openjepa.nn.init import initialize_convolutions
from openjepa.nn.losses import smooth_l1
from openjepa.nn.sparse_convnet import ConvPredictorConfig, SparseConvNet, SparseConvNetConfig


@dataclass(frozen=True)
class CNNJEPA(TargetsConfig):
    """CNN-JEPA: predict the EMA encoder's features of hidden patches with convolutions alone.

    L = d(predictor(encoder(visible), mask token elsewhere)[hidden], LayerNorm(ema_encoder(image))[hidden])

    Source: Kalapos and Gyires-Tóth, 2024, arXiv 2408.07514, section 3.

    Differs: ConvNeXt blocks in place of a ResNet-50; the loss is that of I-JEPA; any mask strategy of images.
    """

    encoder: SparseConvNetConfig = field(default_factory=SparseConvNetConfig)
    predictor: ConvPredictorConfig = field(default_factory=ConvPredictorConfig)

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the data are images whose patches the stages of the encoder lead to."""
        if not isinstance(data, PatchGrid):
            raise UserError("cnn-jepa requires images: try --method jepa")
        self.encoder.check(data.patch, "--method.encoder")
        self.check_layers(self.encoder.depth)

    def build(self, modality: Modality, seed: int = 0) -> ConvolutionalJEPA:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return ConvolutionalJEPA(self, modality, torch.Generator().manual_seed(seed))

    def build_encoder(self, modality: Modality, which: str = "") -> SparseConvNet:
        """Build an encoder alone, to load weights into: it has torch's default initialization."""
        return self.encoder.build(modality)

    def build_networks(self, modality: Modality, generator: torch.Generator) -> tuple[Encoder, nn.Module]:
        """Build the encoder and the predictor with their first weights."""
        encoder = self.build_encoder(modality)
        predictor = self.predictor.build(self.encoder.dim, encoder.grid)
        initialize_convolutions(encoder, generator)
        initialize_convolutions(predictor, generator)
        return encoder, predictor

    def describe(self) -> str:
        """Describe the networks in one line."""
        return f"{self.encoder.describe()}; predictor of {self.predictor.depth} blocks"

    def encoder_cost(self, data: Any) -> int:
        """Return the FLOPs of encoding one view, forward."""
        return self.encoder.flops(data.channels, data.layout.count)

    def cost(self, data: Modality, masks: Iterable[MaskShape]) -> StepFlops:
        """Return the FLOPs of one sample; hidden patches are computed, too."""
        count, encoder = len(list(masks)), self.encoder_cost(data)
        dim, sizes = self.encoder.dim, self.predictor
        predictor = 2 * data.layout.count * dim * sizes.depth * (8 * dim + sizes.kernel**2)
        return StepFlops(target=encoder, context=3 * count * encoder, predictor=3 * count * predictor)


class ConvolutionalJEPA(MaskedPrediction):
    """Networks and loss of a `CNNJEPA` config."""

    def __init__(self, config: CNNJEPA, modality: Modality, generator: torch.Generator):
        super().__init__(config, modality, generator)
        self.config = config

    def targets(self, batch: Batch) -> Targets:
        """Encode the whole image with the EMA encoder and normalize the features."""
        return self.encode_targets(batch.views[0])

    def forward(self, batch: Batch, targets: Targets) -> Output:
        """Compute the loss of predicting the hidden patches from the visible ones."""
        tokens = self.modality.tokens(batch.views[0])
        losses = []
        for masked in stack_masks(tokens, targets.x, batch.masks):
            (context,) = self.context_encoder(tokens, masked.keep)
            predicted = self.predictor(context, masked.where)
            losses.append(compare(smooth_l1, predicted, masked))
        return masked_output(losses, targets)
