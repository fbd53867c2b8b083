"""Hold out a part of the training data, on which a probe selects its settings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

VALIDATION_FRACTION = 0.1  # of the training data


class ValidationSplit(NamedTuple):
    """Indices of the training data in a random order: all, the validation part, and the rest."""

    shuffled: Int[Tensor, "S"]
    validation: Int[Tensor, "V"]
    training: Int[Tensor, "R"]


def validation_split(count: int, seed: int) -> ValidationSplit:
    """Split `count` samples at random into a tenth (at least one) and the rest; a function of the seed."""
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    size = max(1, int(count * VALIDATION_FRACTION))
    return ValidationSplit(shuffled, shuffled[:size], shuffled[size:])
