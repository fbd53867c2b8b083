"""Settings of a run that trains a decoder on the frozen networks of another run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from openjepa.core.capabilities import Inverts, PatchGrid, require
from openjepa.core.errors import UserError
from openjepa.masking.multiblock import MultiBlock
from openjepa.methods.decoder import Decoder
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.recipes.settings import TrainDecoder
from openjepa.training.config import Pretrain, load_config
from openjepa.training.optim import Optim
from openjepa.training.run_folder import PREDICTOR_PREFIX, load_all_networks

# one target block; the context is everything outside it
BLOCK_MASK = MultiBlock(targets=1, target_scale=(0.25, 0.4), context_scale=(1.0, 1.0), context_fraction=1.0)


def decoder_config(settings: TrainDecoder) -> Pretrain:
    """Build the config of the run that trains the decoder.

    Raises UserError if the source run lacks the networks, or if the sizes do not fit.
    """
    run = Path(settings.run)
    source = load_config(run)
    check_source(settings, source)
    check_width(settings)
    root = settings.root or source.data.root
    if not root:
        raise UserError(f"{run} does not record the images that it was trained on: give them with --root")
    return Pretrain(
        dataclasses.replace(source.data, root=root, crop_scale=(0.7, 1.0), color_jitter=0.0),
        decoder_method(settings, source.method),
        BLOCK_MASK,
        decoder_optim(settings.lr),
        steps=settings.steps,
        budget="" if settings.steps else settings.budget,
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        out=settings.out or run / "decoder",
        resume="if-any",
        init_from=run,
    )


def decoder_method(settings: TrainDecoder, source: JEPA | MAE) -> Decoder:
    """Build the method: the source's networks under the settings of the decoder."""
    return Decoder(
        source.encoder,
        source.predictor,
        predicts_pixels=isinstance(source, JEPA) and source.pixel_loss_weight > 0,
        condition=settings.condition,
        pooled=settings.pooled,
        decoder_dim=settings.dim,
        decoder_depth=settings.depth,
        decoder_heads=settings.num_heads,
    )


def decoder_optim(lr: float) -> Optim:
    """Return AdamW with a short warmup and a short-lived EMA."""
    return Optim(
        lr=lr,
        start_lr=0.0,
        final_lr=1e-6,
        warmup=0.05,
        weight_decay=0.01,
        final_weight_decay=0.01,
        ema_momentum=0.99,
        beta2=0.99,
        clip=1.0,
    )


def check_source(settings: TrainDecoder, source: Pretrain) -> None:
    """Raise UserError unless the source run has the networks that the decoder is conditioned on."""
    run, method = Path(settings.run), source.method
    require(require(source.data, Inverts, "jepa decoder"), PatchGrid, "jepa decoder")
    if not isinstance(method, JEPA | MAE):
        raise UserError(f"{run} is not a JEPA or MAE run on images: give the folder of one")
    if settings.condition == "features":
        return
    if not isinstance(method, JEPA):
        raise UserError(f"{run} predicts pixels, not features: leave --condition prediction out")
    if not any(name.startswith(PREDICTOR_PREFIX) for name in load_all_networks(run)):
        raise UserError(f"{run} has no predictor: give the run's folder, or leave --condition prediction out")


def check_width(settings: TrainDecoder) -> None:
    """Raise UserError unless the width fits the heads and the sine-cosine positions."""
    unit = 4 * settings.num_heads
    if settings.dim % unit:
        better = max(1, round(settings.dim / unit)) * unit
        raise UserError(f"--dim must be a multiple of 4 · --num-heads = {unit}, got {settings.dim}: try --dim {better}")
