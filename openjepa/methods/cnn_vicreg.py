"""VICReg with a convolutional encoder, as in the paper, which used a ResNet (arXiv 2105.04906)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from openjepa.core.capabilities import PatchGrid
from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.types import MaskShape
from openjepa.methods.vicreg import VICRegConfig
from openjepa.methods.views import JointViews
from openjepa.nn.init import initialize_convolutions
from openjepa.nn.sparse_convnet import SparseConvNet, SparseConvNetConfig


@dataclass(frozen=True)
class CNNVICReg(VICRegConfig):
    """VICReg with convolutions: two views of a sample get the same features, which stay spread out and decorrelated.

    The loss is that of `VICReg`. Convolutions treat all places alike before any training, which helps with little data.

    Source: Bardes et al., ICLR 2022, arXiv 2105.04906, section 4.

    Differs: ConvNeXt blocks in place of a ResNet-50.
    """

    encoder: SparseConvNetConfig = field(default_factory=SparseConvNetConfig)

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the data are pictures whose patches the stages of the encoder lead to."""
        if not isinstance(data, PatchGrid):
            raise UserError("cnn-vicreg requires images or spectrograms: try --method vicreg")
        self.encoder.check(data.patch, "--method.encoder")

    def build_encoder(self, modality: Modality, which: str = "") -> SparseConvNet:
        """Build the encoder alone, to load weights into: it has torch's default initialization."""
        return self.encoder.build(modality)

    def initialize(self, method: JointViews, generator: torch.Generator) -> None:
        """Give the networks their first weights."""
        initialize_convolutions(method.context_encoder, generator)
        initialize_convolutions(method.predictor, generator)

    def encoder_cost(self, data: Any) -> int:
        """Return the FLOPs of encoding one view, forward."""
        return self.encoder.flops(data.channels, data.layout.count)

    def view_cost(self, data: Any, masks: Iterable[MaskShape]) -> int:
        """Return the forward FLOPs of encoding a view; hidden patches are computed, too."""
        return self.encoder_cost(data)
