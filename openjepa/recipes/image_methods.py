"""Recipes of the image methods beside I-JEPA for CIFAR-10 and other 32-pixel images, all with the same encoder.

All of them at equal time and with the same probes: docs/results/comparison.md, by python -m studies.images.compare.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from openjepa.masking.random import Random
from openjepa.methods.cnn_jepa import CNNJEPA
from openjepa.methods.dmt_jepa import DMTJEPA
from openjepa.methods.learned_masks import LearnedMasks
from openjepa.methods.lejepa import LeJEPA
from openjepa.methods.s_jea import SJEA
from openjepa.methods.salt import SALT
from openjepa.nn.expander import ExpanderConfig
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.sparse_convnet import ConvPredictorConfig
from openjepa.recipes.image_small import SMALL_VIT, cifar10_muon, mae_cifar10
from openjepa.training.config import Pretrain
from openjepa.training.stages import Stages

ENCODER = dataclasses.replace(SMALL_VIT, init="scaled", stem_init="scaled")
PREDICTOR = PredictorConfig(dim=96, depth=2, init="scaled")
TARGETS: dict[str, Any] = {"target_layers": (2, 3, 4, 5), "target_transforms": ("standardize",)}  # against collapse
AUGMENTED = {"flip": True, "color_jitter": 0.5, "crop_scale": (0.2, 1.0)}  # SimCLR's settings for CIFAR-10


def small_run(method: Any, masks: Any, lr: float = 3e-3, **data: Any) -> Pretrain:
    """Return a run of a method with the schedule of `cifar10-muon`."""
    base = cifar10_muon()
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, **data),
        method=method,
        masks=masks,
        optim=dataclasses.replace(base.optim, lr=lr),
    )


def small_views(method: Any, lr: float = 3e-3) -> Pretrain:
    """Return a run of a method that compares augmented views; a masked one sees a quarter of the patches of each."""
    return small_run(method, Random(mask_ratio=0.75, masks_per_sample=4), lr, **AUGMENTED)


def dmt_cifar10() -> Pretrain:
    """DMT-JEPA on CIFAR-10: targets are summaries of similar neighbors.

    Command: jepa pretrain dmt-cifar10 --data.root cifar10/train --out runs/dmt --threads 1 --budget 10m
    """
    return small_run(DMTJEPA(ENCODER, PREDICTOR, **TARGETS), Random(mask_ratio=0.75, target_fraction=0.5))


def cnn_cifar10() -> Pretrain:
    """CNN-JEPA on CIFAR-10: convolutions that hidden patches never leak through, in place of a transformer.

    Command: jepa pretrain cnn-cifar10 --data.root cifar10/train --out runs/cnn --threads 1 --budget 10m
    """
    method = CNNJEPA(predictor=ConvPredictorConfig(depth=1), target_transforms=("standardize",))
    return small_run(method, Random(mask_ratio=0.75), lr=1e-3)


def lejepa_cifar10() -> Pretrain:
    """LeJEPA on CIFAR-10: four augmented views agree, their embeddings are normally distributed; no EMA.

    Command: jepa pretrain lejepa-cifar10 --data.root cifar10/train --out runs/lejepa --threads 1 --budget 10m
    """
    return small_views(LeJEPA(ENCODER, ExpanderConfig(dim=1024, output_dim=64), masked=True))


def s_jea_cifar10() -> Pretrain:
    """S-JEA on CIFAR-10: joint embedding at two levels. Measure both: --encoder level1, --encoder level2.

    Command: jepa pretrain s-jea-cifar10 --data.root cifar10/train --out runs/s-jea --threads 1 --budget 10m
    """
    level2 = dataclasses.replace(ENCODER, dim=96, depth=2)
    return small_views(SJEA(ENCODER, level2=level2, masked=True))


def learned_masks_cifar10() -> Pretrain:
    """I-JEPA on CIFAR-10 with masks that a network learns against the predictor.

    Command: jepa pretrain learned-masks-cifar10 --data.root cifar10/train --out runs/masks --threads 1 --budget 10m
    """
    return small_run(LearnedMasks(ENCODER, PREDICTOR, **TARGETS), Random(mask_ratio=0.75))


def salt_cifar10() -> Stages:
    """SALT on CIFAR-10 in two stages: a masked autoencoder, then the features that it gives, as a frozen teacher.

    Command: jepa pretrain salt-cifar10 --data.root cifar10/train --out runs/salt --threads 1
    Takes: two thousand steps of the teacher and eight thousand of the student, of 128 images.
    """
    teacher = dataclasses.replace(mae_cifar10(), batch_size=128, steps=2000)
    method = SALT(ENCODER, PREDICTOR, teacher="stage-1", **TARGETS)
    student = small_run(method, Random(mask_ratio=0.75, target_fraction=0.5))
    return Stages((teacher, dataclasses.replace(student, steps=8000)))
