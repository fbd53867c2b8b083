"""The low-shot probe: few labels per class, over several random subsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.errors import UserError

STRENGTH = 1e-2  # of logistic regression on standardised features: too few labels to choose it by


class LowShotResult(NamedTuple):
    """What one draw of labels leads to."""

    shots: int  # labels in all
    correct: Float[Tensor, "R"]  # 1 where a test image was known, else 0

    @property
    def accuracy(self) -> float:
        return self.correct.mean().item()


def lowshot_probe(
    answer: Callable[[Int[Tensor, "K"]], Int[Tensor, "R"]],
    label: Int[Tensor, "S"],
    truth: Int[Tensor, "R"],
    classes: int,
    shots: int | float,
    draws: int = 5,
    seed: int = 0,
) -> list[LowShotResult]:
    """What `answer` makes of the test data from `shots` labels a class, or, below 1, from that share of each class.

    Source: paper, section 5, 1 % of ImageNet, there one fixed list. Mistake where a class has fewer images than shots.
    """
    found = []
    for draw in range(draws):
        index = choose_labeled(label, classes, shots, torch.Generator().manual_seed(1_000_003 * seed + draw))
        found.append(LowShotResult(len(index), (answer(index) == truth).float()))
    return found


def choose_labeled(
    label: Int[Tensor, "S"], classes: int, shots: int | float, generator: torch.Generator
) -> Int[Tensor, "K"]:
    """The samples that keep their label: from each class the same number, or the same share and one at least."""
    if shots <= 0 or (shots >= 1 and shots != int(shots)):
        raise UserError(f"{shots:g} shots: give a whole number of labels a class, or a share between 0 and 1")
    chosen = []
    for number in range(classes):
        mine = torch.where(label == number)[0]
        if not len(mine):
            raise UserError(
                f"class {number} has no training image, so no shots: leave lowshot out, or give more images"
            )
        wanted = int(shots) if shots >= 1 else max(1, round(shots * len(mine)))
        if wanted > len(mine):
            raise UserError(
                f"class {number} has {len(mine)} images, fewer than {wanted} shots: try --shots {len(mine)}"
            )
        chosen.append(mine[torch.randperm(len(mine), generator=generator)[:wanted]])
    return torch.cat(chosen)
