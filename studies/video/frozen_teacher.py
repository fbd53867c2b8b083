"""JEPA whose targets come from the frozen encoder of an earlier run, as in SALT (Li et al., 2025, arXiv 2509.24317)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from openjepa.core.types import Batch
from openjepa.methods.jepa import JEPA, MaskedJEPA
from openjepa.methods.masked import Targets
from openjepa.nn.target_transforms import normalize_patches


@dataclass(frozen=True)
class FrozenTeacher(JEPA):
    """Predict features of a frozen encoder, such as one that was trained to predict pixels."""

    teacher: str = ""  # folder of the run whose encoder gives the targets

    def teachers(self) -> dict[str, str]:
        return {"teacher": self.teacher}

    def build(self, modality: Any, seed: int = 0) -> FrozenTeacherMethod:
        return FrozenTeacherMethod(self, modality, torch.Generator().manual_seed(seed))


class FrozenTeacherMethod(MaskedJEPA):
    """The EMA encoder stays, as the encoder that is evaluated; it gives no targets."""

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        layers = self.teachers["teacher"](batch.views[0], (*self.config.target_layers, -1))
        x, std = self.transform(self.average_layers(list(layers[:-1])), layers[-1].valid)
        if self.config.pixel_loss_weight:
            x = torch.cat([x, normalize_patches(self.modality.tokens(batch.views[0]).x)], -1)
        return Targets(x, layers[-1].mean(), std)
