"""The methods of the comparison, each with three settings to try; all encoders have 2.6 to 2.7 million weights."""

from __future__ import annotations

import dataclasses

from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.random import Random
from openjepa.methods.cnn_jepa import CNNJEPA
from openjepa.methods.dmt_jepa import DMTJEPA
from openjepa.methods.iwm import IWM
from openjepa.methods.lejepa import LeJEPA
from openjepa.methods.mae import MAE
from openjepa.methods.s_jea import SJEA
from openjepa.methods.vicreg import VICReg
from openjepa.nn.expander import ExpanderConfig
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.sparse_convnet import ConvPredictorConfig
from openjepa.recipes.image_small import SMALL_VIT, cifar10_hours, cifar10_minutes, cifar10_muon, mae_cifar10
from openjepa.training.config import Pretrain

ENCODER = dataclasses.replace(SMALL_VIT, init="scaled", stem_init="scaled")
PREDICTOR = PredictorConfig(dim=96, depth=2, init="scaled")
TARGETS = {"target_layers": (2, 3, 4, 5), "target_transforms": ("standardize",)}  # as the recipes of I-JEPA
AUGMENTED = {"flip": True, "color_jitter": 0.5, "crop_scale": (0.2, 1.0)}  # SimCLR's for CIFAR-10


def run(method: object, masks: object, lr: float = 3e-3, **data: object) -> Pretrain:
    """Return a run with Muon and batch size 128, as `cifar10-muon`."""
    base = cifar10_muon()
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, **data),
        method=method,
        masks=masks,
        optim=dataclasses.replace(base.optim, lr=lr),
    )


def joint(method: object, lr: float = 3e-3, **data: object) -> Pretrain:
    """Return a run of a method that compares augmented views."""
    return run(method, Random(mask_ratio=0.75, masks_per_sample=4), lr, **{**AUGMENTED, **data})


def trials() -> dict[str, dict[str, Pretrain]]:
    """Return method -> settings -> run."""
    quarter, half = Random(mask_ratio=0.75), Random(mask_ratio=0.75, target_fraction=0.5)
    vicreg = VICReg(ENCODER, ExpanderConfig(dim=1024), masked=True)
    lejepa = LeJEPA(ENCODER, ExpanderConfig(dim=1024, output_dim=64), masked=True)
    level2 = dataclasses.replace(ENCODER, dim=96, depth=2)
    s_jea = SJEA(ENCODER, level2=level2, masked=True)
    cnn = CNNJEPA(predictor=ConvPredictorConfig(depth=1), target_transforms=("standardize",))
    mae = mae_cifar10()
    return {
        "I-JEPA": {
            "cifar10-muon": cifar10_muon(),
            "cifar10-hours": cifar10_hours(),
            "cifar10-minutes": cifar10_minutes(),
        },
        "DMT-JEPA": {
            "random masks": run(DMTJEPA(ENCODER, PREDICTOR, **TARGETS), half),
            "blocks": run(DMTJEPA(ENCODER, PREDICTOR, **TARGETS), MultiBlock()),
            "8 neighbors": run(DMTJEPA(ENCODER, PREDICTOR, neighbors=8, **TARGETS), half),
        },
        "IWM": {
            "predictor of 1 block": run(IWM(ENCODER, dataclasses.replace(PREDICTOR, depth=1), **TARGETS), half),
            "predictor of 6 blocks": run(IWM(ENCODER, dataclasses.replace(PREDICTOR, depth=6), **TARGETS), half),
            "no conditioning": run(IWM(ENCODER, PREDICTOR, conditioning="none", **TARGETS), half),
        },
        "CNN-JEPA": {
            "random masks": run(cnn, quarter, 1e-3),
            "blocks": run(cnn, MultiBlock(), 1e-3),
            "random masks, lr 3e-3": run(cnn, quarter),
        },
        "LeJEPA": {
            "4 views, a quarter visible": joint(lejepa),
            "4 views, λ 0.1": joint(dataclasses.replace(lejepa, regularization=0.1)),
            "2 whole views": joint(dataclasses.replace(lejepa, views=2, masked=False)),
        },
        "VICReg": {
            "a quarter visible": joint(vicreg),
            "whole views": joint(dataclasses.replace(vicreg, masked=False)),
            "a quarter visible, lr 1e-3": joint(vicreg, 1e-3),
        },
        "S-JEA": {
            "a quarter visible": joint(s_jea),
            "whole views": joint(dataclasses.replace(s_jea, masked=False)),
            "a quarter visible, lr 1e-3": joint(s_jea, 1e-3),
        },
        "MAE": {
            "mae-cifar10": mae,
            "Muon": run(mae.method, quarter),
            "Muon, decoder of 1 block": run(MAE(ENCODER, dataclasses.replace(PREDICTOR, depth=1)), quarter),
        },
    }


def without_augmentation(settings: Pretrain) -> Pretrain:
    """Return a run whose views are crops alone."""
    plain = {"flip": False, "color_jitter": 0.0, "crop_scale": (0.3, 1.0)}
    return dataclasses.replace(settings, data=dataclasses.replace(settings.data, **plain))


VIEWS = ("LeJEPA", "VICReg", "S-JEA")  # compare augmented views; also measured with crops alone
