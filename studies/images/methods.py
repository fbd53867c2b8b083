"""The methods of the comparison, each with three settings to try; all encoders have 2.6 to 2.7 million weights."""

from __future__ import annotations

import dataclasses

from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.random import Random
from openjepa.methods.dmt_jepa import DMTJEPA
from openjepa.methods.iwm import IWM
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.methods.vicreg import VICReg
from openjepa.nn.expander import ExpanderConfig
from openjepa.recipes.image_methods import (
    ENCODER,
    PREDICTOR,
    TARGETS,
    cnn_cifar10,
    dmt_cifar10,
    learned_masks_cifar10,
    lejepa_cifar10,
    s_jea_cifar10,
    small_run,
    small_views,
)
from openjepa.recipes.image_small import cifar10_hours, cifar10_minutes, cifar10_muon, mae_cifar10
from openjepa.training.config import Pretrain


def trials() -> dict[str, dict[str, Pretrain]]:
    """Return method -> settings -> run."""
    quarter, half = Random(mask_ratio=0.75), Random(mask_ratio=0.75, target_fraction=0.5)
    vicreg = VICReg(ENCODER, ExpanderConfig(dim=1024), masked=True)
    lejepa, s_jea, cnn, mae = (make() for make in (lejepa_cifar10, s_jea_cifar10, cnn_cifar10, mae_cifar10))
    return {
        "I-JEPA": {
            "cifar10-muon": cifar10_muon(),
            "cifar10-hours": cifar10_hours(),
            "cifar10-minutes": cifar10_minutes(),
        },
        "DMT-JEPA": {
            "random masks": dmt_cifar10(),
            "blocks": small_run(DMTJEPA(ENCODER, PREDICTOR, **TARGETS), MultiBlock()),
            "8 neighbors": small_run(DMTJEPA(ENCODER, PREDICTOR, neighbors=8, **TARGETS), half),
        },
        "IWM": {
            "predictor of 1 block": small_run(IWM(ENCODER, dataclasses.replace(PREDICTOR, depth=1), **TARGETS), half),
            "predictor of 6 blocks": small_run(IWM(ENCODER, dataclasses.replace(PREDICTOR, depth=6), **TARGETS), half),
            "no conditioning": small_run(IWM(ENCODER, PREDICTOR, conditioning="none", **TARGETS), half),
        },
        "CNN-JEPA": {
            "random masks": cnn,
            "blocks": small_run(cnn.method, MultiBlock(), 1e-3),
            "random masks, lr 3e-3": small_run(cnn.method, quarter),
        },
        "LeJEPA": {
            "4 views, a quarter visible": lejepa,
            "4 views, λ 0.1": small_views(dataclasses.replace(lejepa.method, regularization=0.1)),
            "2 whole views": small_views(dataclasses.replace(lejepa.method, views=2, masked=False)),
        },
        "VICReg": {
            "a quarter visible": small_views(vicreg),
            "whole views": small_views(dataclasses.replace(vicreg, masked=False)),
            "a quarter visible, lr 1e-3": small_views(vicreg, 1e-3),
        },
        "S-JEA": {
            "a quarter visible": s_jea,
            "whole views": small_views(dataclasses.replace(s_jea.method, masked=False)),
            "a quarter visible, lr 1e-3": small_views(s_jea.method, 1e-3),
        },
        "MAE": {
            "mae-cifar10": mae,
            "Muon": small_run(mae.method, quarter),
            "Muon, decoder of 1 block": small_run(MAE(ENCODER, dataclasses.replace(PREDICTOR, depth=1)), quarter),
        },
    }


def mask_runs() -> dict[str, Pretrain]:
    """Return runs of I-JEPA that differ in what is hidden."""
    jepa = JEPA(ENCODER, PREDICTOR, **TARGETS)
    return {
        "4 blocks": small_run(jepa, MultiBlock()),
        "three quarters at random": small_run(jepa, Random(mask_ratio=0.75)),
        "learned": learned_masks_cifar10(),
    }


def settings_of(method: str, trial: str) -> Pretrain:
    """Return the settings of a run by the names of its method and its settings."""
    return {**trials(), MASKS: mask_runs()}[method][trial]


def without_augmentation(settings: Pretrain) -> Pretrain:
    """Return a run whose views are crops alone."""
    plain = {"flip": False, "color_jitter": 0.0, "crop_scale": (0.3, 1.0)}
    return dataclasses.replace(settings, data=dataclasses.replace(settings.data, **plain))


MASKS = "masks"  # in place of a method: I-JEPA with other masks
VIEWS = ("LeJEPA", "VICReg", "S-JEA")  # compare augmented views; also measured with crops alone
