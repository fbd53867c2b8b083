"""SALT: predict features of a frozen encoder that was trained on pixels (Li et al., 2025, arXiv 2509.24317)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Output
from openjepa.masking.stack import stack_masks
from openjepa.methods.masked import MaskedConfig, MaskedPrediction, Targets, compare, masked_output
from openjepa.nn.losses import l1


@dataclass(frozen=True)
class SALT(MaskedConfig):
    """SALT: predict the features of hidden patches that a frozen teacher gives.

    L = |predictor(encoder(visible), positions) - LayerNorm(teacher(image))[hidden]|

    The teacher is an earlier run, such as a masked autoencoder; a recipe trains both as stages. Targets that do not
    move cannot collapse.

    Source: Li et al., 2025, arXiv 2509.24317, section 3.

    Differs: an EMA of the encoder is kept, for evaluation alone.
    """

    teacher: str = ""  # folder of the run whose encoder gives the targets

    def teachers(self) -> dict[str, str]:
        """Return the folder of the teacher."""
        return {"teacher": self.teacher}

    def build(self, modality: Modality, seed: int = 0) -> FrozenTargets:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return FrozenTargets(self, modality, torch.Generator().manual_seed(seed))


class FrozenTargets(MaskedPrediction):
    """Networks and loss of a `SALT` config."""

    def __init__(self, config: SALT, modality: Any, generator: torch.Generator):
        super().__init__(config, modality, generator)
        self.config = config

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Encode the whole image with the teacher and normalize the features."""
        *layers, output = self.teachers["teacher"](batch.views[0], (*self.target_layers, -1))
        if output.x.shape[-1] != self.config.target_dim:
            raise UserError(
                f"the teacher has features of width {output.x.shape[-1]}, the encoder of {self.config.target_dim}: "
                f"try --method.encoder.dim {output.x.shape[-1]}"
            )
        x, std = self.transform(self.average_layers(layers), output.valid)
        return Targets(x, output.mean(), std)

    def forward(self, batch: Batch, targets: Targets) -> Output:
        """Compute the loss of predicting the teacher's features of hidden patches (section 3.2)."""
        tokens = self.modality.tokens(batch.views[0])
        losses, features = [], []
        for masked in stack_masks(tokens, targets.x, batch.masks):
            (context,) = self.context_encoder(tokens, masked.keep)
            predicted = self.predictor(context, masked.where, valid=masked.valid, mask_sets=masked.mask_sets)
            losses.append(compare(l1, predicted, masked))
            features.append(context.mean().detach().unflatten(0, (len(batch.index), -1))[:, 0])  # of the first mask
        return masked_output(losses, targets)._replace(features=features[0])  # the teacher cannot collapse
