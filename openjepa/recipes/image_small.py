"""Recipes for small images and small machines.

Accuracies are in %, in the order linear / logistic regression / kNN unless the docstring says otherwise.
"""

from __future__ import annotations

import dataclasses

from openjepa.masking.random import Random
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.methods.vicreg import VICReg
from openjepa.modalities.image import Image
from openjepa.nn.expander import ExpanderConfig
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim

SMALL_VIT = ViTConfig(dim=192, depth=6, num_heads=3)


def small_jepa(predictor_depth: int = 6) -> JEPA:
    """Return a JEPA with an encoder of width 192 and depth 6 and a predictor of half its width."""
    return JEPA(SMALL_VIT, PredictorConfig(dim=96, depth=predictor_depth))


def small_objective(method: JEPA) -> JEPA:
    """Return the objective that keeps small runs from collapsing.

    Targets are averaged over all blocks and standardized; patch embeddings have the scale of the position embeddings.
    """
    return dataclasses.replace(
        method,
        encoder=dataclasses.replace(method.encoder, stem_init="scaled"),
        target_layers=tuple(range(method.encoder.depth)),
        target_transforms=("standardize",),
    )


def small_schedule() -> Optim:
    """Return a schedule with a shorter EMA than the paper's and constant weight decay."""
    return Optim(warmup=0.1, ema_momentum=0.99, weight_decay=0.04, final_weight_decay=0.04)


def cifar10() -> Pretrain:
    """CIFAR-10 and other 32-pixel images on two CPU cores: ViT of width 192 and depth 6, patch 4.

    Command: jepa pretrain cifar10 --data.root cifar10/train --out runs/cifar10
    Takes: 104 minutes on two cores of an EPYC with avx512_bf16.
    Result: linear heads 61.5 %, logistic regression on the last four layers 65.3 %, kNN 54.0 % (seed 0); the untrained
    encoder has 40.8, 55.5 and 30.5: docs/results/images.md.
    """
    return Pretrain(
        data=Image(size=(32, 32), patch=4),
        method=small_objective(small_jepa(predictor_depth=4)),
        optim=small_schedule(),
        epochs=44.0,
        batch_size=128,
    )


def tune_for_minutes(base: Pretrain, method: JEPA) -> Pretrain:
    """Change a run so that it learns more in four minutes than the original does in twenty.

    Each step of the way, linear / kNN accuracy after four minutes on one core on CIFAR-10, on held-out training images,
    one seed (studies/small_data/README.md):
    42.3 / 28.5 the original run;
    49.7 / 37.3 four masks each of fewer images, the objective below without pixels, rotary positions;
    52.9 / 41.0 the pixel loss, a predictor of two blocks, twice the learning rate;
    54.4 / 42.6 an EMA that stays short, half of the masked patches as targets;
    54.0 / 42.1 one mask each of 64 images, sine-cosine positions;
    55.6 / 43.4 the target encoder sees the targets alone;
    57.2 / 43.7 a higher learning rate once more.
    """
    method = small_objective(method)
    return dataclasses.replace(
        base,
        masks=Random(mask_ratio=0.75, target_fraction=0.5),
        method=dataclasses.replace(
            method,
            encoder=dataclasses.replace(method.encoder, init="scaled"),
            predictor=dataclasses.replace(method.predictor, depth=2, init="scaled"),
            # centered, since the network otherwise first learns the mean token of each image
            target_transforms=("center", "standardize"),
            target_input="targets_only",  # 3/8 of the work of the target encoder, equally good at equal steps
            pixel_loss_weight=1.0,  # an auxiliary target that does not change during training
        ),
        optim=dataclasses.replace(small_schedule(), lr=1e-3, beta2=0.95, final_ema_momentum=0.99),
        batch_size=64,
    )


def tune_for_folders(base: Pretrain, method: JEPA) -> Pretrain:
    """Change a run so that it learns from images it was not tuned on, also in few steps.

    The objective of `cifar10-muon` with targets from all layers, two thirds of its learning rate for half its batch
    size, and an EMA that spans at most a tenth of the steps so far (`ema_rampup`). With that EMA kNN has 95.2 % after
    376 steps on digits, without it 75.8; after 200 steps on photographs it has 80.3, while a third of the learning rate
    without that EMA had 72.0 (studies/small_data/folders.md).
    """
    config = tune_for_minutes(base, method)
    return dataclasses.replace(
        config,
        masks=dataclasses.replace(config.masks, target_fraction=1.0),
        method=dataclasses.replace(config.method, target_stride=3),
        optim=dataclasses.replace(config.optim, lr=2e-3, optimizer="muon", ema_rampup=0.1),
    )


def cifar10_minutes() -> Pretrain:
    """CIFAR-10 in minutes: four minutes on one core beat twenty minutes of `cifar10`.

    Targets come from the last four layers: 57.1 / 56.4 / 44.0 (four minutes, mean of two seeds) against
    57.2 / 56.1 / 43.4 with all six. On digits they come closer to collapse, so `tune_for_folders` keeps all layers
    (studies/small_data/folders.md). For twenty minutes and more: `cifar10-hours`.

    Command: jepa pretrain cifar10-minutes --data.root cifar10/train --out runs/minutes --budget 20m
    Takes: as long as --budget says. Results: docs/results/small-data.md.
    """
    config = tune_for_minutes(cifar10(), small_jepa())
    return dataclasses.replace(config, method=dataclasses.replace(config.method, target_layers=(2, 3, 4, 5)))


def cifar10_hours() -> Pretrain:
    """CIFAR-10 in twenty minutes and more on a CPU: `cifar10-minutes` with all masked patches as targets.

    Pixels are predicted at all masked patches, as in a masked autoencoder, and features at every third of them, so that
    a step takes as long as before; the learning rate is 1.5 times as high. After twenty minutes 60.5 / 59.0 / 47.1,
    against 59.9 / 58.2 / 46.9 of `cifar10-minutes` (held-out training images); after four, half a point behind it.

    Command: jepa pretrain cifar10-hours --data.root cifar10/train --out runs/hours --threads 1 --steps 32920
    Takes: 84 minutes on one core.
    Result: linear heads 66.3 %, logistic regression 62.5 %, kNN 53.4 % of the test images (seed 0); the untrained
    encoder has 46.1, 46.5 and 34.5: docs/results/images.md.
    """
    config = cifar10_minutes()
    return dataclasses.replace(
        config,
        masks=dataclasses.replace(config.masks, target_fraction=1.0),
        method=dataclasses.replace(config.method, target_stride=3),
        optim=dataclasses.replace(config.optim, lr=1.5e-3),
    )


def cifar10_muon() -> Pretrain:
    """CIFAR-10 with Muon: `cifar10-hours` with orthogonalized updates of the blocks' matrices and batch size 128.

    At equal time, on held-out training images:
    58.1 / 57.1 / 46.2 after 4 minutes, against 57.1 / 56.4 / 44.0 of `cifar10-minutes` (two seeds);
    62.4 / 60.0 / 49.9 after 20 minutes, against 60.5 / 59.0 / 47.1 of `cifar10-hours`;
    67.1 / 64.0 / 54.5 after 82 minutes, against 65.4 / 62.3 / 50.1 of `cifar10-hours` after 84 (one seed).
    Reasons for each setting: docs/results/small-data.md.

    Command: jepa pretrain cifar10-muon --data.root cifar10/train --out runs/muon --threads 1 --steps 17028
    Takes: 82 minutes on one core.
    Result: linear heads 68.1 %, logistic regression 63.9 %, kNN 56.7 % of the test images (seed 0); the untrained
    encoder has 46.1, 46.5 and 34.5: docs/results/images.md.
    """
    config = cifar10_hours()
    return dataclasses.replace(
        config, optim=dataclasses.replace(config.optim, optimizer="muon", lr=3e-3), batch_size=128
    )


def mae_cifar10() -> Pretrain:
    """MAE (masked autoencoder) on CIFAR-10: the baseline for `cifar10-minutes`, with the same encoder.

    Equal to it after four and ten minutes; a point ahead after twenty, where `cifar10-hours` is equal, and after forty.

    Command: jepa pretrain mae-cifar10 --data.root cifar10/train --out runs/mae --budget 20m
    Takes: as long as --budget says. Results: docs/results/small-data.md.
    """
    base = cifar10()
    return dataclasses.replace(
        base,
        method=MAE(
            dataclasses.replace(SMALL_VIT, init="scaled", stem_init="scaled"),
            PredictorConfig(dim=96, depth=2, init="scaled"),
        ),
        masks=Random(mask_ratio=0.75),
        optim=dataclasses.replace(base.optim, lr=2e-3, beta2=0.95),
    )


def vicreg_cifar10() -> Pretrain:
    """VICReg on CIFAR-10 with a quarter of each crop visible: the other baseline, with the same encoder.

    Far behind `cifar10-minutes` after four minutes in all eleven settings tried: studies/small_data/README.md.
    The usual color jitter: --data.color-jitter 0.5. Whole crops: --method.no-masked.

    Command: jepa pretrain vicreg-cifar10 --data.root cifar10/train --out runs/vicreg --budget 20m
    Takes: as long as --budget says. Results: docs/results/small-data.md.
    """
    base = cifar10()
    encoder = dataclasses.replace(SMALL_VIT, init="scaled", stem_init="scaled")
    method = VICReg(encoder, ExpanderConfig(dim=1024), masked=True)
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, flip=True),
        method=method,
        masks=Random(mask_ratio=0.75, masks_per_sample=2),
        optim=dataclasses.replace(base.optim, lr=2e-3, beta2=0.95),
    )


def laptop() -> Pretrain:
    """Laptop training on photographs: 96 pixels, patch 8, ViT of width 192 and depth 6.

    The same settings are chosen for a folder of photographs on a CPU when no recipe is named.

    Command: jepa pretrain laptop --data.root photos/ --out runs/photos --budget 2h
    Takes: as long as --budget says.
    Result: 600 steps (980 s on one core of a Zen 3) on 6,400 crops of 160 photographs. The photograph that another crop
    comes from is recognized with 98.4 % by logistic regression and 85.6 % by kNN; the untrained encoder has 94.9 and
    64.7 (studies/small_data/folders.md).
    """
    data = Image(size=(96, 96), patch=8)
    return tune_for_folders(Pretrain(data, epochs=100.0), small_jepa())
