"""Recipes of fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FinetuneRecipe:
    """AdamW with a cosine; no average of the weights, no RandAugment (the paper has MAE's)."""

    epochs: int = 50
    batch_size: int = 128
    lr: float = 1e-3  # of the last layer
    layer_decay: float = 0.75  # each block's rate is that of the one above times this
    weight_decay: float = 0.05
    warmup: float = 0.1  # share of the run
    mixup: float = 0.8  # parameters of the beta distributions; 0: without
    cutmix: float = 1.0
    drop_path: float = 0.1  # of the last block, linear from 0 at the first; our encoders only
    label_smoothing: float = 0.1


FinetuneRecipeName = Literal["default", "lowshot", "in1k-448"]

FINETUNE_RECIPES: dict[FinetuneRecipeName, FinetuneRecipe] = {  # by name; sources in docs/evaluation.md
    "default": FinetuneRecipe(),
    "lowshot": FinetuneRecipe(batch_size=512, lr=3e-5, mixup=0.0, cutmix=0.0, drop_path=0.0),
    "in1k-448": FinetuneRecipe(batch_size=528, lr=1e-4 * 528 / 256, weight_decay=0.04, drop_path=0.25),
}
