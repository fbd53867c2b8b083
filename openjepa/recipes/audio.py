"""Sound: small machines, and the two systems of the literature."""

from __future__ import annotations

import dataclasses

from openjepa.core.errors import UserError
from openjepa.masking.curriculum import Curriculum
from openjepa.masking.random import Random
from openjepa.methods.cnn_vicreg import CNNVICReg
from openjepa.methods.jepa import JEPA
from openjepa.modalities.audio import Audio
from openjepa.nn.expander import ExpanderConfig
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.sparse_convnet import SparseConvNetConfig
from openjepa.nn.vit import VIT_SIZES, ViTConfig
from openjepa.recipes.image_small import tune_for_minutes
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim

SOUNDS_SEEN = 128_000  # stretches over all epochs of a run without --budget

FEWEST = 8  # recordings, to have a batch of several


def audio_small() -> Pretrain:
    """Short recordings on a CPU: stretches of a second, 64 mel bands, patches of 8×8, a ViT of width 128 and depth 4.

    Three of four patches are masked at random; features of all layers and values of the spectrogram are predicted.

    Command: jepa pretrain audio-small --data.root recordings/ --out runs/audio --budget 10m
    Takes: as long as --budget says.
    Source: Riou et al., arXiv 2405.08679, for unstructured masks and targets that see no context; the settings are this
    project's.
    """
    return dataclasses.replace(tune_for_audio(Audio()), epochs=40.0)


def tune_for_audio(data: Audio) -> Pretrain:
    """Return the networks, the objective and the masks of small runs: those of `cifar10-minutes`, with Muon."""
    method = JEPA(ViTConfig(dim=128, depth=4, num_heads=4), PredictorConfig(dim=64))
    config = tune_for_minutes(Pretrain(data), method)
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, optimizer="muon", lr=2e-3))


def audio_words() -> Pretrain:
    """Short words of new voices: two views of a recording, at other speeds and through other filters, agree.

    VICReg with convolutions. A view plays 1.3 times slower to faster, which also moves pitch and formants, its level
    varies by 6 dB, its spectrum by 12 dB. The features are the strongest response of each row of patches over time.

    Source: Bardes et al., arXiv 2105.04906, for the objective; the settings are this project's.
    Command: jepa pretrain audio-words --data.root words/ --out runs/words --threads 1
    Takes: six minutes of one core of an EPYC for 400 steps.
    """
    data = Audio(
        rate=8000, short="silence", normalize="stretch", floor=45.0, gain=6.0, equalizer=12.0, speed=(1 / 1.3, 1.3),
        pooling="row-max",
    )  # fmt: skip
    method = CNNVICReg(SparseConvNetConfig(dim=128, depths=(0, 0, 1, 2)), ExpanderConfig(dim=512, depth=2))
    config = tune_for_minutes(Pretrain(data), JEPA())
    return dataclasses.replace(
        config, method=method, optim=dataclasses.replace(config.optim, lr=2e-3), batch_size=128, epochs=27.0
    )


def a_jepa() -> Pretrain:
    """A-JEPA: ten seconds of sound at 16 kHz, 128 mel bands, patches of 16×16, ViT-B; from blocks to time–frequency.

    Source: Fei, Fan and Huang, 2023, arXiv 2311.15830. Published: AudioSet-2M 48.6 mAP, AudioSet-20K 38.4, ESC-50
    96.3 %, Speech Commands v2 98.5 %.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain a-jepa --data.root audioset/ --out runs/a-jepa
    Takes: not run here.
    Differs: the paper does not give the schedules of learning rate, weight decay and EMA, which are I-JEPA's.
    """
    return Pretrain(
        data=Audio(rate=16_000, frames=1024, bands=128, patch=16, gain=6.0),
        method=JEPA(
            ViTConfig(**VIT_SIZES["base"]), PredictorConfig(dim=512, depth=16, num_heads=16), loss="squared_l2"
        ),
        masks=Curriculum(),
        optim=Optim(lr=2e-4, start_lr=1e-5),
        epochs=24.0,
        batch_size=512,
    )


def audio_design_study() -> Pretrain:
    """Two seconds of sound, unstructured masks, a target encoder that sees the target patches alone, ViT-B.

    Source: Riou, Lattner, Hadjeres and Peeters, 2024, arXiv 2405.08679. Published, linear probes: ESC-50 89.3 %,
    UrbanSound8K 87.2, Speech Commands v2 94.9, VoxCeleb1 60.8, CREMA-D 72.2, GTZAN 82.1, NSynth 76.8.
    Command: torchrun --nproc-per-node 8 -m openjepa pretrain audio-design-study --data.root sounds/ --out runs/audio
    Takes: not run here.
    Differs: values quieter than 80 dB below the loudest are raised to that, and frames are padded to 512 samples for
    the Fourier transform.
    """
    return Pretrain(
        data=Audio(rate=16_000, frames=208, bands=80, patch=16, low=50.0, high=8000.0),
        method=JEPA(
            ViTConfig(**VIT_SIZES["base"]),
            PredictorConfig(dim=512, depth=8, num_heads=16),
            target_input="targets_only",
        ),
        masks=Random(mask_ratio=0.6),
        optim=Optim(
            lr=3e-4 * 2048 / 256, start_lr=0.0, warmup=20 / 300, weight_decay=0.05, final_weight_decay=0.05, beta2=0.95,
            ema_momentum=0.99995, final_ema_momentum=0.99999, clip=3.0,
        ),
        epochs=300.0,
        batch_size=2048,
    )  # fmt: skip


def choose_settings(data: Audio) -> tuple[Pretrain, tuple[str, ...]]:
    """Choose the settings of a run without a recipe, and return them with the reasons, one line each.

    Raises UserError if there are fewer than `FEWEST` recordings.
    """
    count = len(data.dataset(data.listing()))
    if count < FEWEST:
        raise UserError(
            f"too few recordings to learn from: {count} in {' '.join(data.root)}; give more files, or cut long ones "
            "into several stretches: --data.every 2"
        )
    config = tune_for_audio(data)
    batch = min(config.batch_size, 2 ** (count.bit_length() - 1))
    steps_per_epoch = count // batch
    epochs = max(1, round(SOUNDS_SEEN / (batch * steps_per_epoch)))
    steps = f"no --budget: {epochs * steps_per_epoch:,} steps with batch size {batch}, about {SOUNDS_SEEN:,} stretches"
    return dataclasses.replace(config, batch_size=batch, epochs=float(epochs)), (
        f"{data.describe()}; a ViT of width {config.method.encoder.dim} and depth {config.method.encoder.depth}; "
        f"{config.masks.mask_ratio:.0%} of the patches are masked at random",
        f"{count:,} recordings; {steps}",
    )
