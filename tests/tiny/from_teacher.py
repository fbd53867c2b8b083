"""A pair of views and a frozen teacher: predict the teacher's features of the second view from the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjepa.core.types import Batch, Output
from openjepa.methods.base import BaseMethod, MethodConfig
from openjepa.nn.init import initialize
from openjepa.nn.vit import ViT


@dataclass(frozen=True)
class FromTeacher(MethodConfig):
    """Distill the encoder of an earlier run on the second view into an encoder of the first view."""

    dim: int = 32
    teacher: str = ""  # folder of the run whose encoder is the frozen teacher

    @property
    def needs_masks(self) -> bool:
        return False

    def build(self, modality: Any, seed: int = 0) -> FromTeacherMethod:
        return FromTeacherMethod(self.dim, modality, torch.Generator().manual_seed(seed))

    def teachers(self) -> dict[str, str]:
        return {"teacher": self.teacher}


class FromTeacherMethod(BaseMethod):
    """The student and a head that maps its features to the teacher's."""

    def __init__(self, dim: int, modality: Any, generator: torch.Generator):
        super().__init__()
        self.modality = modality
        self.student = ViT(modality.tokenizer(dim), dim, 2, 2)
        self.head = nn.Linear(dim, 48)
        initialize(self, generator, "scaled")

    def targets(self, batch: Batch) -> Tensor:
        (features,) = self.teachers["teacher"](batch.views[1])
        return features.mean()

    def forward(self, batch: Batch, targets: Tensor) -> Output:
        (features,) = self.student(self.modality.tokens(batch.views[0]))
        return Output(F.mse_loss(self.head(features.mean()), targets), {}, features.mean().detach())

    def encoders(self) -> dict[str, nn.Module]:
        return {"student": self.student}
