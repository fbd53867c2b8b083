"""Recipes for radar images (SAR)."""

from __future__ import annotations

import dataclasses

from openjepa.masking.windows import Windows
from openjepa.methods.sar_jepa import SARJEPA
from openjepa.modalities.image import Image
from openjepa.recipes.image_methods import ENCODER, PREDICTOR
from openjepa.recipes.image_small import cifar10_muon
from openjepa.training.config import Pretrain


def sar_small() -> Pretrain:
    """SAR-JEPA on radar chips of one channel, 64 pixels, patch 8: gradients at three scales, in local windows.

    Images of 8 and 16 bits and float TIFF are read as they are; --data.value-range sets what becomes black and white.

    Command: jepa pretrain sar-small --data.root chips/ --out runs/sar --threads 1 --steps 1500
    """
    data = Image(size=(64, 64), patch=8, channels=1, crop_scale=(0.5, 1.0), flip=True)
    method = SARJEPA(ENCODER, PREDICTOR, radii=(1, 2, 4))
    return dataclasses.replace(cifar10_muon(), data=data, method=method, masks=Windows(size=6), batch_size=64)
