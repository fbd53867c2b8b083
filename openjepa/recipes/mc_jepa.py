"""Recipe for motion and content (MC-JEPA)."""

from __future__ import annotations

import dataclasses

from openjepa.masking.random import Random
from openjepa.methods.mc_jepa import MCJEPA
from openjepa.modalities.image_pair import ImagePair
from openjepa.recipes.image_methods import AUGMENTED
from openjepa.recipes.image_small import cifar10
from openjepa.training.config import Pretrain
from openjepa.training.settings import Stream


def mc_jepa_small() -> Pretrain:
    """MC-JEPA on small machines: content from 32-pixel images, motion from warps of photographs and from frames.

    Command: jepa pretrain mc-jepa-small --data.root cifar10/train --streams.0.data.root photos/
             --streams.1.data.root clips/ --out runs/motion --steps 3000
    """
    base = cifar10()
    motion = ImagePair(size=(96, 96), patch=8, crop_scale=(0.1, 1.0), flip=True)
    streams = (
        Stream(dataclasses.replace(motion, pairs="warps"), Random(), batch_size=16),
        Stream(dataclasses.replace(motion, pairs="frames", crop_scale=(0.5, 1.0)), Random(), batch_size=16),
    )
    return dataclasses.replace(
        base,
        data=ImagePair(size=(32, 32), patch=8, pairs="views", **AUGMENTED),
        method=MCJEPA(),
        optim=dataclasses.replace(base.optim, lr=1e-3, clip=1.0, beta2=0.95),
        streams=streams,
        batch_size=128,
    )
