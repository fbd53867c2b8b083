"""I-JEPA as published: the four official configs, and the smaller models of the paper.

None of them was trained here, since they take days on many GPUs; their parts are tested against the published numbers.
"""

from __future__ import annotations

from openjepa.masking.official import Official
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import VIT_SIZES, ViTConfig
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim


def imagenet(pixels: int, patch: int) -> Image:
    """Return square crops normalized by the mean and standard deviation of ImageNet."""
    return Image(size=(pixels, pixels), patch=patch, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def released_config(
    size: str, *, pixels: int, patch: int, predictor_depth: int, epochs: float, warmup: float
) -> Pretrain:
    """Return what the official configs share."""
    return Pretrain(
        data=imagenet(pixels, patch),
        method=JEPA(ViTConfig(**VIT_SIZES[size]), PredictorConfig(dim=384, depth=predictor_depth)),
        masks=Official(),
        optim=Optim(warmup=warmup / epochs),
        epochs=epochs,
        batch_size=2048,
    )


def paper_config(size: str, *, predictor_depth: int) -> Pretrain:
    """Return the settings of the paper's text for its smaller models, where it differs from the official configs."""
    return Pretrain(
        data=imagenet(224, 16),
        method=JEPA(ViTConfig(**VIT_SIZES[size]), PredictorConfig(dim=384, depth=predictor_depth), loss="squared_l2"),
        masks=Official(),
        optim=Optim(start_lr=1e-4, warmup=15 / 600, weight_decay_shape="linear"),
        epochs=600.0,
        batch_size=2048,
    )


def ijepa_vith14_in1k() -> Pretrain:
    """ViT-H/14, ImageNet-1k, 224 px, 300 epochs: the official config.

    Source: official config in1k_vith14_ep300. Published: linear probe 79.3 %.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain ijepa-vith14-in1k --data.root in1k --out runs/vith14
    Takes: under 72 hours on 16 A100 according to the paper; not run here.
    """
    return released_config("huge", pixels=224, patch=14, predictor_depth=12, epochs=300.0, warmup=40.0)


def ijepa_vith16_448_in1k() -> Pretrain:
    """ViT-H/16, ImageNet-1k, 448 px, 300 epochs: the official config.

    Source: official config in1k_vith16-448_ep300. Published: linear probe 81.1 %.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain ijepa-vith16-448-in1k --data.root in1k --out runs/vith16
    Takes: not run here.
    Differs: contexts are truncated to the shortest of 128 samples; in the official run, to the shortest of 16 on a GPU.
    """
    return released_config("huge", pixels=448, patch=16, predictor_depth=12, epochs=300.0, warmup=40.0)


def ijepa_vith14_in22k() -> Pretrain:
    """ViT-H/14, ImageNet-22k, 224 px, 66 epochs: the official config.

    Source: official config in22k_vith14_ep66.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain ijepa-vith14-in22k --data.root in22k --out runs/vith14-22k
    Takes: not run here.
    Differs: contexts are truncated to the shortest of 128 samples, not of 32.
    """
    return released_config("huge", pixels=224, patch=14, predictor_depth=12, epochs=66.0, warmup=3.0)


def ijepa_vitg16_in22k() -> Pretrain:
    """ViT-g/16, ImageNet-22k, 224 px, 44 epochs: the official config.

    Source: official config in22k_vitg16_ep44.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain ijepa-vitg16-in22k --data.root in22k --out runs/vitg16-22k
    Takes: not run here.
    Differs: contexts are truncated to the shortest of 128 samples, not of 16.
    """
    return released_config("giant", pixels=224, patch=16, predictor_depth=16, epochs=44.0, warmup=3.0)


def ijepa_vitb16() -> Pretrain:
    """ViT-B/16, 224 px, 600 epochs: the paper's text.

    Source: paper, appendix A.1 (squared L2, linear weight decay, 15 warm-up epochs). Published: linear probe 72.9 %.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain ijepa-vitb16 --data.root in1k --out runs/vitb16
    Takes: not run here.
    """
    return paper_config("base", predictor_depth=6)


def ijepa_vitl16() -> Pretrain:
    """ViT-L/16, 224 px, 600 epochs: the paper's text.

    Source: paper, appendix A.1. Published: linear probe 77.5 %.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain ijepa-vitl16 --data.root in1k --out runs/vitl16
    Takes: not run here.
    """
    return paper_config("large", predictor_depth=12)


def ijepa_vits16() -> Pretrain:
    """ViT-S/16, 224 px: the official settings at a size for one GPU.

    Source: the official configs; the predictor has half the encoder's depth and the batch size is 256.
    Command: jepa pretrain ijepa-vits16 --data.root photos/ --out runs/photos
    Takes: not run to the end here; benchmarks/step.py measures the speed of its training step.
    """
    return Pretrain(
        data=Image(size=(224, 224), patch=16),
        method=JEPA(ViTConfig(**VIT_SIZES["small"]), PredictorConfig(dim=384, depth=6)),
        optim=Optim(warmup=0.1),
        epochs=300.0,
        batch_size=256,
    )
