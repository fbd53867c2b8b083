"""Masked autoencoder: predict the pixels of masked patches (He et al., CVPR 2022, arXiv 2111.06377). A baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from openjepa.core.protocols import Modality
from openjepa.core.types import Batch
from openjepa.methods.reconstruction import ReconstructionConfig, ReconstructionMethod, Targets
from openjepa.nn.target_transforms import normalize_patches


@dataclass(frozen=True)
class MAE(ReconstructionConfig):
    """MAE: reconstruct the pixels of masked patches from the visible ones.

    L = mean squared error between decoder(encoder(visible patches), positions) and the pixels of the masked patches

    Source: He et al., CVPR 2022, arXiv 2111.06377, section 3. As in the paper, mask 75 % at random:
    --masks random --masks.mask-ratio 0.75.

    Differs: no class token; the decoder is JEPA's predictor and outputs the masked patches only.
    """

    normalize_targets: bool = True  # scale each patch to mean 0, variance 1 (the paper's better variant)

    def build(self, modality: Modality, seed: int = 0) -> MaskedAutoencoder:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return MaskedAutoencoder(self, modality, torch.Generator().manual_seed(seed))


class MaskedAutoencoder(ReconstructionMethod):
    """Networks and loss of an `MAE` config."""

    def __init__(self, config: MAE, modality: Modality, generator: torch.Generator):
        super().__init__(config, modality, generator)
        self.config = config

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Return the pixels of every patch, normalized per patch unless `normalize_targets` is off."""
        x = self.modality.tokens(batch.views[0]).x.float()
        return Targets(normalize_patches(x) if self.config.normalize_targets else x)
