"""The low-shot probe: few labels per class, over several random subsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.errors import UserError

STRENGTH = 1e-2  # regularization of logistic regression on standardized features; too few labels to select it


class LowShotResult(NamedTuple):
    """The result of one random subset of labels."""

    shots: int  # labels in total
    correct: Float[Tensor, "R"]  # 1 where a test image was classified correctly, else 0

    @property
    def accuracy(self) -> float:
        return self.correct.mean().item()


def lowshot_probe(
    answer: Callable[[Int[Tensor, "K"]], Int[Tensor, "R"]],
    label: Int[Tensor, "S"],
    truth: Int[Tensor, "R"],
    classes: int,
    shots: int | float,
    repeats: int = 5,
    seed: int = 0,
) -> list[LowShotResult]:
    """Score `answer`, which maps labeled rows to test predictions, on `repeats` random subsets of labels.

    Each subset has `shots` labels per class or, if `shots` is below 1, that fraction of each class. Source: paper,
    section 5: 1 % of ImageNet, there one fixed list. Raises UserError if a class has fewer images than shots.
    """
    results = []
    for repeat in range(repeats):
        index = choose_labeled(label, classes, shots, torch.Generator().manual_seed(1_000_003 * seed + repeat))
        results.append(LowShotResult(len(index), (answer(index) == truth).float()))
    return results


def choose_labeled(
    label: Int[Tensor, "S"], classes: int, shots: int | float, generator: torch.Generator
) -> Int[Tensor, "K"]:
    """Draw the samples that keep their label: `shots` per class or, below 1, that fraction and at least one."""
    if shots <= 0 or (shots >= 1 and shots != int(shots)):
        raise UserError(f"--shots must be a whole number of labels per class or a fraction below 1, got {shots:g}")
    chosen = []
    for number in range(classes):
        rows = torch.where(label == number)[0]
        if not len(rows):
            raise UserError(f"class {number} has no training image: drop lowshot from --probes, or add images")
        count = int(shots) if shots >= 1 else max(1, round(shots * len(rows)))
        if count > len(rows):
            raise UserError(f"class {number} has {len(rows)} images, fewer than {count} shots: try --shots {len(rows)}")
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[:count]])
    return torch.cat(chosen)
