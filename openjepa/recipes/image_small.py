"""Recipes for small data and small machines."""

from __future__ import annotations

import dataclasses

from openjepa.masking.config import Masking
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.methods.vicreg import VICReg
from openjepa.modalities.image import Image
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim


def small_objective(method: JEPA) -> JEPA:
    """What keeps small runs alive: targets averaged over all blocks, each feature standardised; patches as loud as positions."""
    return dataclasses.replace(method, target_layers=tuple(range(method.depth)), standardize=True, stem_init="scaled")


def small_schedule() -> Optim:
    """A shorter-lived average than the paper's, and constant weight decay."""
    return Optim(warmup=0.1, ema_momentum=0.99, weight_decay=0.04, final_weight_decay=0.04)


def cifar10() -> Pretrain:
    """CIFAR-10 and other 32-pixel images: ViT 192×6, patch 4, on two CPU cores.

    Command: jepa pretrain cifar10 --data.root cifar10/train --out runs/cifar10
    Takes: 104 minutes on two cores of an EPYC with avx512_bf16; linear heads 61.5 %, logistic regression on the last four
    layers 65.3 %, kNN 54.0 % (seed 0); the encoder before training 40.8, 55.5 and 30.5: docs/results.md.
    """
    return Pretrain(
        data=Image(size=(32, 32), patch=4),
        method=small_objective(JEPA(dim=192, depth=6, num_heads=3, predictor_dim=96, predictor_depth=4)),
        optim=small_schedule(),
        epochs=44.0,
        batch_size=128,
    )


def for_minutes(base: Pretrain, method: JEPA) -> Pretrain:
    """A run changed so that it learns in four minutes more than it would in twenty.

    Of four minutes on one core on CIFAR-10, linear / kNN accuracy on held-out training images, one seed (docs/study.md):
    as it was 42.3 / 28.5; four masks of fewer images, the objective below but for pixels, rotary positions 49.7 / 37.3;
    pixels, a predictor of two layers, twice the learning rate 52.9 / 41.0; an average that stays short, half of what is
    hidden 54.4 / 42.6; one mask each of 64 images, sine-cosine positions 54.0 / 42.1; targets alone 55.6 / 43.4; the learning
    rate again 57.2 / 43.7.
    """
    return dataclasses.replace(
        base,
        masks=Masking(sampler="random", mask_ratio=0.75, target_fraction=0.5),
        method=dataclasses.replace(
            small_objective(method),
            target_input="targets_only",  # three eighths of the work, and as good at equal steps
            center=True,  # else the mean of an image is what is learnt first
            init="scaled",
            pixel_loss_weight=1.0,  # a second target, which stands still
            predictor_depth=2,
        ),
        optim=dataclasses.replace(small_schedule(), lr=1e-3, beta2=0.95, final_ema_momentum=0.99),
        batch_size=64,
    )


def for_folders(base: Pretrain, method: JEPA) -> Pretrain:
    """A run changed so that it learns from pictures that nothing was tuned on, in few steps, too.

    The objective of `cifar10-muon`, with targets of all layers; two thirds of its rate for half its images; and an average that spans
    a tenth of the steps so far at most. After 376 steps on digits neighbours have 95.2 % with it and 75.8 without; after
    200 on photographs 80.3, where a third of the rate without it had 72.0 (docs/folders.md).
    """
    config = for_minutes(base, method)
    return dataclasses.replace(
        config,
        masks=dataclasses.replace(config.masks, target_fraction=1.0),
        method=dataclasses.replace(config.method, target_stride=3),
        optim=dataclasses.replace(config.optim, lr=2e-3, optimizer="muon", ema_rampup=0.1),
    )


def cifar10_minutes() -> Pretrain:
    """CIFAR-10 in minutes: in four on one core more than `cifar10` reaches in twenty.

    Targets are of the last four layers: 57.1 / 56.4 / 44.0 (linear / logistic / kNN, four minutes, mean of two seeds) against
    57.2 / 56.1 / 43.4 of all six. On digits they come nearer to dying, so that folders keep all (docs/folders.md). For twenty
    minutes and more: `cifar10-hours`.

    Command: jepa pretrain cifar10-minutes --data.root cifar10/train --out runs/minutes --budget 20m
    Takes: the time it is given; results in docs/small-data.md.
    """
    config = for_minutes(cifar10(), JEPA(dim=192, depth=6, num_heads=3, predictor_dim=96))
    return dataclasses.replace(config, method=dataclasses.replace(config.method, target_layers=(2, 3, 4, 5)))


def cifar10_hours() -> Pretrain:
    """CIFAR-10 in twenty minutes and more on a CPU: the recipe for minutes, asked for all that is hidden.

    Pixels at all hidden places, as a masked autoencoder is asked for them, features at every third of those, so that a step
    takes as long as before; a learning rate half as high again. At twenty minutes 60.5 / 59.0 / 47.1 against 59.9 / 58.2 / 46.9
    (linear / logistic / kNN, held-out training images), at four half a point behind.

    Command: jepa pretrain cifar10-hours --data.root cifar10/train --out runs/hours --threads 1 --steps 32920
    Takes: 84 minutes on one core; linear heads 66.3 %, logistic regression 62.5 %, kNN 53.4 % of the test images (seed 0); the
    encoder before training 46.1, 46.5 and 34.5: docs/results.md.
    """
    config = cifar10_minutes()
    return dataclasses.replace(
        config,
        masks=dataclasses.replace(config.masks, target_fraction=1.0),
        method=dataclasses.replace(config.method, target_stride=3),
        optim=dataclasses.replace(config.optim, lr=1.5e-3),
    )


def cifar10_muon() -> Pretrain:
    """CIFAR-10 by Muon: `cifar10-hours` with blocks' matrices moved by orthogonal ones, and 128 images a step.

    At equal time, linear / logistic / kNN on held-out training images: four minutes 58.1 / 57.1 / 46.2 against 57.1 / 56.4 /
    44.0 of `cifar10-minutes` (two seeds); twenty 62.4 / 60.0 / 49.9 against 60.5 / 59.0 / 47.1 of `cifar10-hours`; 82
    67.1 / 64.0 / 54.5 against 65.4 / 62.3 / 50.1 in 84 (one seed). Each line of the recipe: docs/small-data.md.

    Command: jepa pretrain cifar10-muon --data.root cifar10/train --out runs/muon --threads 1 --steps 17028
    Takes: 82 minutes on one core; linear heads 68.1 %, logistic regression 63.9 %, kNN 56.7 % of the test images (seed 0); the
    encoder before training 46.1, 46.5 and 34.5: docs/results.md.
    """
    config = cifar10_hours()
    return dataclasses.replace(
        config, optim=dataclasses.replace(config.optim, optimizer="muon", lr=3e-3), batch_size=128
    )


def mae_cifar10() -> Pretrain:
    """A masked autoencoder on CIFAR-10: the opponent of `cifar10-minutes`, of the same encoder.

    Level with it at four and at ten minutes, a point ahead at twenty, where `cifar10-hours` is level, and at forty.

    Command: jepa pretrain mae-cifar10 --data.root cifar10/train --out runs/mae --budget 20m
    Takes: the time it is given; results in docs/small-data.md.
    """
    base = cifar10()
    return dataclasses.replace(
        base,
        method=MAE(
            dim=192, depth=6, num_heads=3, predictor_dim=96, predictor_depth=2, init="scaled", stem_init="scaled"
        ),
        masks=Masking(sampler="random", mask_ratio=0.75),
        optim=dataclasses.replace(base.optim, lr=2e-3, beta2=0.95),
    )


def vicreg_cifar10() -> Pretrain:
    """Joint embedding of two crops on CIFAR-10, a quarter of each shown: the other opponent, of the same encoder.

    Far behind `cifar10-minutes` at four minutes, in all of eleven settings that were tried (docs/study.md). The usual changes of
    colour: --data.color-jitter 0.5. Whole crops: --method.no-masked.

    Command: jepa pretrain vicreg-cifar10 --data.root cifar10/train --out runs/vicreg --budget 20m
    Takes: the time it is given; results in docs/small-data.md.
    """
    base = cifar10()
    method = VICReg(dim=192, depth=6, num_heads=3, predictor_dim=1024, init="scaled", stem_init="scaled", masked=True)
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, flip=True),
        method=method,
        masks=Masking(sampler="random", mask_ratio=0.75, masks_per_sample=2),
        optim=dataclasses.replace(base.optim, lr=2e-3, beta2=0.95),
    )


def laptop() -> Pretrain:
    """Photographs on a laptop: 96 pixels, patch 8, ViT 192×6; what is chosen on a CPU for a folder of them.

    Command: jepa pretrain laptop --data.root photos/ --out runs/photos --budget 2h
    Takes: the time it is given. 600 steps, 980 s of one core of a Zen 3, with 6,400 crops of 160 photographs: which one
    another crop is of, logistic regression 98.4 %, kNN 85.6 %; before training 94.9 and 64.7 (docs/folders.md).
    """
    data = Image(size=(96, 96), patch=8)
    return for_folders(Pretrain(data, epochs=100.0), JEPA(dim=192, depth=6, num_heads=3, predictor_dim=96))
