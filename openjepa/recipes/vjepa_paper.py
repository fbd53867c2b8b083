"""V-JEPA and V-JEPA 2 as published.

None of them was trained here, since they take weeks on many GPUs; their parts are tested against minimal/vjepa.py and
the transformers library.
"""

from __future__ import annotations

import dataclasses

from openjepa.masking.tube import Tube
from openjepa.methods.jepa import JEPA
from openjepa.modalities.video import Video
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import VIT_SIZES, ViTConfig
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim
from openjepa.training.stages import Stages


def clips(pixels: int, frames: int = 16) -> Video:
    """Return square clips normalized by the mean and standard deviation of ImageNet, mirrored at random."""
    return Video(
        frames=frames,
        size=(pixels, pixels),
        crop_aspect=(0.75, 1.35),
        flip=True,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def vjepa_config(size: str, *, pixels: int, batch_size: int) -> Pretrain:
    """Return what the released configs of V-JEPA share: 90,000 steps, with schedules 1.25 times as long."""
    return Pretrain(
        data=clips(pixels),
        method=JEPA(ViTConfig(**VIT_SIZES[size]), PredictorConfig(dim=384, depth=12, mask_tokens=2), loss="l1"),
        masks=Tube(),
        optim=Optim(lr=6.25e-4, warmup=12 / 90, stretch=1.25, ema_momentum=0.998, clip=10.0),
        steps=90_000,
        batch_size=batch_size,
    )


def vjepa2_config(size: str, heads: int, *, pixels: int = 256) -> Stages:
    """Return the two stages of V-JEPA 2: 16 frames for 240,000 steps, then 64 frames for 12,000 steps of decay.

    `pixels` is the size in the second stage; the first has 256.
    """
    encoder = dataclasses.replace(ViTConfig(**VIT_SIZES[size]), num_heads=heads, positions="rope_vjepa2")
    first = Pretrain(
        data=dataclasses.replace(clips(256), stride=0, fps=4.0),
        method=JEPA(encoder, PredictorConfig(dim=384, depth=12, num_heads=12, mask_tokens=2), loss="l1"),
        masks=Tube(),
        optim=Optim(
            lr=5.25e-4,
            start_lr=1e-4,
            final_lr=5.25e-4,
            warmup=12 / 240,
            final_weight_decay=0.04,
            ema_momentum=0.99925,
            final_ema_momentum=0.99925,
        ),
        steps=240_000,
        batch_size=3072,
    )
    second = dataclasses.replace(
        first,
        data=dataclasses.replace(first.data, frames=64, size=(pixels, pixels)),
        optim=dataclasses.replace(first.optim, warmup=0.0, final_lr=1e-6),
        steps=12_000,
    )
    return Stages((first, second))


def vjepa_vitl16() -> Pretrain:
    """ViT-L/16, clips of 16 frames of 224 px, 90,000 steps of 3,072 clips: V-JEPA's released config.

    Source: Bardes et al., 2024, arXiv 2404.08471, and the released config. Published, frozen attentive probe:
    Kinetics-400 80.8 %, Something-Something v2 69.5 %, ImageNet 74.8 %.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain vjepa-vitl16 --data.root clips.csv --out runs/vjepa
    Takes: not run here.
    Differs: gradients are clipped from the first step, not after the warm-up; positions are x, y, t and the rest of the
    width is 0, where the released table is cut off; masks are padded, not truncated, and size and aspect ratio of their
    blocks are independent.
    """
    return vjepa_config("large", pixels=224, batch_size=3072)


def vjepa_vith16() -> Pretrain:
    """ViT-H/16, clips of 16 frames of 224 px, 90,000 steps of 3,072 clips: V-JEPA's released config.

    Source: Bardes et al., 2024, arXiv 2404.08471, and the released config.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain vjepa-vith16 --data.root clips.csv --out runs/vjepa
    Takes: not run here.
    Differs: as `vjepa-vitl16`.
    """
    return vjepa_config("huge", pixels=224, batch_size=3072)


def vjepa_vith16_384() -> Pretrain:
    """ViT-H/16, clips of 16 frames of 384 px, 90,000 steps of 2,400 clips: V-JEPA's released config.

    Source: Bardes et al., 2024, arXiv 2404.08471, and the released config. Published, frozen attentive probe:
    Kinetics-400 81.9 %, Something-Something v2 72.2 %, ImageNet 77.4 %.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain vjepa-vith16-384 --data.root clips.csv --out runs/vjepa
    Takes: not run here.
    Differs: as `vjepa-vitl16`.
    """
    return vjepa_config("huge", pixels=384, batch_size=2400)


def vjepa2_vitl16() -> Stages:
    """ViT-L/16, V-JEPA 2: 240,000 steps with 16 frames of 256 px, then 12,000 with 64 frames.

    Source: Assran et al., 2025, arXiv 2506.09985, and the released configs.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain vjepa2-vitl16 --data.root clips.csv --out runs/vjepa2
    Takes: not run here.
    Differs: one source of clips, where the published runs mix several, and images, by weight, with two mask tokens for
    each; the learning rate decays by a half cosine, not linearly; masks are padded, not truncated.
    """
    return vjepa2_config("large", 16)


def vjepa2_vith16() -> Stages:
    """ViT-H/16, V-JEPA 2: 240,000 steps with 16 frames of 256 px, then 12,000 with 64 frames.

    Source: Assran et al., 2025, arXiv 2506.09985, and the released configs.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain vjepa2-vith16 --data.root clips.csv --out runs/vjepa2
    Takes: not run here.
    Differs: as `vjepa2-vitl16`.
    """
    return vjepa2_config("huge", 16)


def vjepa2_vitg16() -> Stages:
    """ViT-g/16, V-JEPA 2: 240,000 steps with 16 frames of 256 px, then 12,000 with 64 frames.

    Source: Assran et al., 2025, arXiv 2506.09985, and the released configs.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain vjepa2-vitg16 --data.root clips.csv --out runs/vjepa2
    Takes: not run here.
    Differs: as `vjepa2-vitl16`.
    """
    return vjepa2_config("giant", 22)


def vjepa2_vitg16_384() -> Stages:
    """ViT-g/16, V-JEPA 2: 240,000 steps with 16 frames of 256 px, then 12,000 with 64 frames of 384 px.

    Source: Assran et al., 2025, arXiv 2506.09985, and the released configs. Published: Something-Something v2 77.3 %,
    Diving-48 90.2 %, Epic-Kitchens-100 recall at 5 of 39.7 %.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain vjepa2-vitg16-384 --data.root clips.csv --out runs/vjepa2
    Takes: not run here.
    Differs: as `vjepa2-vitl16`.
    """
    return vjepa2_config("giant", 22, pixels=384)
