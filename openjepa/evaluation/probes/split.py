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


GROUP_FOLDS = 4  # into which whole groups are divided


def validation_folds(
    count: int, seed: int, groups: Int[Tensor, "S"] | None = None
) -> list[tuple[Int[Tensor, "R"], Int[Tensor, "V"]]]:
    """Return (training, validation) indices: a random tenth or, with groups, several folds of whole groups.

    Within a group, such as a speaker, samples are alike, and settings that fit it need not fit another one.
    """
    names = [] if groups is None else groups.unique().tolist()
    if groups is None or len(names) < 2:
        split = validation_split(count, seed)
        return [(split.training, split.validation)]
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    folds = []
    for first in range(min(GROUP_FOLDS, len(names))):
        held_out = torch.isin(groups, torch.tensor([names[each] for each in order[first::GROUP_FOLDS]]))
        folds.append((torch.where(~held_out)[0], torch.where(held_out)[0]))
    return folds
