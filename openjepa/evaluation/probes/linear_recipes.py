"""Recipes of the linear probe: optimizer, schedule and sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LinearRecipe:
    """Optimizer, schedule and sweep of the linear probe. Learning rates are for a batch size of 256."""

    optimizer: Literal["sgd", "lars"] = "sgd"
    lr: float = 0.1
    lr_multipliers: tuple[float, ...] = (10.0, 1.0, 0.1, 0.01)
    weight_decays: tuple[float, ...] = (0.0, 5e-4)
    norms: tuple[bool, ...] = (False, True)  # whether batch norm precedes the linear layer
    batch_size: int = 256
    epochs: int = 30
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[int, ...] = ()  # epochs after which the learning rate is divided by 10
    momentum: float = 0.9
    nesterov: bool = True


LinearRecipeName = Literal["default", "in1k", "cifar100", "places205", "inat18", "clevr-count", "clevr-dist"]

LINEAR_RECIPES: dict[LinearRecipeName, LinearRecipe] = {  # sources in docs/reference/evaluation.md
    "default": LinearRecipe(),
    "in1k": LinearRecipe(
        "lars", 0.1, (1.0, 0.1), (5e-4, 0.0), batch_size=16384, epochs=50,
        schedule="steps", milestones=(15, 30, 45), nesterov=False,
    ),
    "cifar100": LinearRecipe("sgd", 0.01, (1.0,), (5e-4,), epochs=28, schedule="steps", milestones=(8, 16, 24)),
    "places205": LinearRecipe("sgd", 0.01, (1.0,), (5e-4,), epochs=14, schedule="steps", milestones=(4, 8, 12)),
    "inat18": LinearRecipe("sgd", 0.01, (1.0,), (5e-4,), epochs=84, schedule="steps", milestones=(24, 48, 72)),
    "clevr-count": LinearRecipe("sgd", 0.01, (1.0,), (5e-4,), epochs=50),
    "clevr-dist": LinearRecipe("sgd", 0.01, (1.0,), (5e-4,), epochs=100),
}  # fmt: skip
