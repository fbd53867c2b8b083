"""SAR-JEPA: predict gradients of radar images in local windows (Li et al., 2024, arXiv 2311.15153).

B batch  N tokens  E width of a target  R masks of all samples  C context tokens  T target tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Keep, Tokens
from openjepa.masking.stack import MaskedBatch
from openjepa.methods.reconstruction import ReconstructionConfig, ReconstructionMethod, Targets
from openjepa.nn.gradients import log_ratio_gradient


@dataclass(frozen=True)
class SARJEPA(ReconstructionConfig):
    """SAR-JEPA: predict the log-ratio gradients of hidden patches, at several scales, from the visible ones.

    L = mean squared error between decoder(encoder(visible patches), positions) and the gradients of the hidden patches

    Speckle, the noise of coherent radar, multiplies intensities; the log of a ratio of means is robust to it.

    Source: Li et al., ISPRS 2024, arXiv 2311.15153, section 3. Masks as in the paper: --masks windows.

    Differs: no class token; fixed sine-cosine positions in place of relative ones.
    """

    # pixels on each side of a pixel that a gradient spans; these are the paper's for images of 224 pixels
    radii: tuple[int, ...] = (5, 9, 13, 17)
    # what the encoder sees of a window. context: the visible patches alone, as in every JEPA; masked: a mask token for
    # each hidden patch, too (paper)
    encoder_input: Literal["context", "masked"] = "context"

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the data are images that are larger than a gradient's span."""
        super().check(data, masks)
        size = getattr(data, "size", ())
        if len(data.layout.shape or ()) != 2 or len(size) != 2:
            raise UserError("sar-jepa predicts gradients of images: try --method mae for other data")
        if not self.radii or min(self.radii) < 1 or max(self.radii) >= min(size):
            radii = " ".join(map(str, self.radii))
            raise UserError(
                f"--method.radii must be from 1 to {min(size) - 1}, below the side of an image, got {radii}: "
                "try --method.radii 1 2 4"
            )

    def target_dim(self, data: Modality) -> int:
        """Return the number of gradients of a patch: one for each value and scale."""
        return data.token_dim * len(self.radii)

    def build(self, modality: Modality, seed: int = 0) -> GradientPrediction:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return GradientPrediction(self, modality, torch.Generator().manual_seed(seed))


class GradientPrediction(ReconstructionMethod):
    """Networks and loss of a `SARJEPA` config."""

    def __init__(self, config: SARJEPA, modality: Modality, generator: torch.Generator):
        super().__init__(config, modality, generator)
        self.config = config
        if config.encoder_input == "masked":
            self.mask_patch = nn.Parameter(torch.zeros(modality.token_dim))  # raw values of a hidden patch

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Return the gradients of every patch at all scales (section 3.2)."""
        images = batch.views[0].float() / 255
        gradients = torch.cat([log_ratio_gradient(images, radius) for radius in self.config.radii], 1)
        return Targets(self.modality.patchify(gradients).x)  # type: ignore[attr-defined]

    def encode(self, tokens: Tokens, masked: MaskedBatch, batch: Batch) -> Tokens:
        """Encode the visible patches of every window; with the input "masked", all of its patches (section 3.1)."""
        if self.config.encoder_input == "context":
            return super().encode(tokens, masked, batch)
        visible = masked.keep.index
        hidden = torch.stack([batch.masks[number].target.flatten(1) for number in masked.mask_sets], 1)
        window = tokens.take_groups(Keep(torch.cat([visible, hidden], 2)))
        x = torch.cat([window.x[:, : visible.shape[2]], self.mask_patch.expand(len(window.x), hidden.shape[2], -1)], 1)
        return self.context_encoder(window._replace(x=x))[0]
