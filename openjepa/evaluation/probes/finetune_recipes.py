"""Recipes of fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FinetuneRecipe:
    """Settings of AdamW with a cosine schedule, regularization and augmentation.

    Differs: no EMA of the weights and no RandAugment; the paper uses MAE's recipe, which has RandAugment.
    """

    epochs: int = 50
    batch_size: int = 128
    lr: float = 1e-3  # learning rate of the last layer
    layer_decay: float = 0.75  # a block's learning rate is that of the block above times this factor
    weight_decay: float = 0.05
    warmup: float = 0.1  # fraction of the steps
    mixup: float = 0.8  # parameter of mixup's beta distribution; 0 = no mixup
    cutmix: float = 1.0  # parameter of CutMix's beta distribution; 0 = no CutMix
    drop_path: float = 0.1  # drop rate in the last block, linear from 0 in the first; only for encoders of this package
    mask_keys: float = 0.0  # fraction of the tokens that no token attends to; only for encoders of this package
    label_smoothing: float = 0.1


FinetuneRecipeName = Literal["default", "lowshot", "in1k-448", "masked-keys"]

FINETUNE_RECIPES: dict[FinetuneRecipeName, FinetuneRecipe] = {  # sources in docs/reference/evaluation.md
    "default": FinetuneRecipe(),
    "lowshot": FinetuneRecipe(batch_size=512, lr=3e-5, mixup=0.0, cutmix=0.0, drop_path=0.0),
    "in1k-448": FinetuneRecipe(batch_size=528, lr=1e-4 * 528 / 256, weight_decay=0.04, drop_path=0.25),
    "masked-keys": FinetuneRecipe(mixup=0.0, cutmix=0.0, mask_keys=0.1),
}
