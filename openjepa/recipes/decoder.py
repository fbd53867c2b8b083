"""The settings of a run that trains a decoder on top of another run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openjepa.core.arguments import Run
from openjepa.core.errors import UserError
from openjepa.masking.config import Masking
from openjepa.methods.decoder import Condition, Decoder
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.modalities.image import Image
from openjepa.training.config import Pretrain, load_config
from openjepa.training.device import Precision
from openjepa.training.optim import Optim
from openjepa.training.run_folder import PREDICTOR_PREFIX, load_all_networks

BLOCK_MASK = Masking(
    targets=1, target_scale=(0.25, 0.4), context_scale=(1.0, 1.0), context_fraction=1.0
)  # all else is shown


@dataclass(frozen=True, kw_only=True)
class TrainDecoder:
    """Trains a decoder on a run's pictures; the run's own networks stay as they are. Called again, it goes on."""

    run: Run  # a run, or what jepa convert made
    out: Path | None = None  # the decoder's folder; by default RUN/decoder
    condition: Condition = "features"  # drawn from: of a whole picture, or what is predicted in a block
    pooled: bool = True  # of a prediction: its mean over the block, as in the paper; or every patch's by itself
    root: tuple[str, ...] = ()  # pictures to learn from; by default the run's own
    dim: int = 256
    depth: int = 8
    num_heads: int = 4
    lr: float = 1e-3
    batch_size: int = 64
    budget: str = "1h"  # time that it may take
    steps: int = 0  # or so many steps
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    threads: int = 0  # of the CPU; 0: all cores


def decoder_config(settings: TrainDecoder) -> Pretrain:
    """The run that trains the decoder. Mistake if the run to be decoded has no such networks."""
    run = Path(settings.run)
    theirs = load_config(run)
    if (
        not isinstance(theirs.data, Image)
        or not isinstance(theirs.method, JEPA | MAE)
        or isinstance(theirs.method, Decoder)
    ):
        raise UserError(f"{run} is no run on images of a JEPA or an autoencoder: give one that is")
    if settings.condition == "prediction" and not isinstance(theirs.method, JEPA):
        raise UserError(f"{run} predicts pixels, no features: leave --condition prediction out")
    if settings.condition == "prediction" and not any(
        name.startswith(PREDICTOR_PREFIX) for name in load_all_networks(run)
    ):
        raise UserError(f"{run} has no predictor: give the run's folder, or leave --condition prediction out")
    if settings.dim % (4 * settings.num_heads):
        better = max(1, round(settings.dim / (4 * settings.num_heads))) * 4 * settings.num_heads
        raise UserError(
            f"--dim {settings.dim} is not a multiple of four times {settings.num_heads} heads: try --dim {better}"
        )
    shared = {each.name for each in dataclasses.fields(JEPA)} & vars(theirs.method).keys()
    sizes = {name: getattr(theirs.method, name) for name in shared} | {"target_input": "whole", "target_stride": 1}
    drawn: dict[str, Any] = {
        "decoder_dim": settings.dim,
        "decoder_depth": settings.depth,
        "decoder_heads": settings.num_heads,
    }
    method = Decoder(**sizes, **drawn, condition=settings.condition, pooled=settings.pooled)
    root = settings.root or theirs.data.root
    if not root:
        raise UserError(f"{run} does not say which pictures it learnt from: give some by --root")
    return Pretrain(
        dataclasses.replace(theirs.data, root=root, crop_scale=(0.7, 1.0), color_jitter=0.0),
        method,
        BLOCK_MASK,
        Optim(settings.lr, 0.0, 1e-6, 0.05, 0.0, 0.01, 0.01, ema_momentum=0.99, beta2=0.99, clip=1.0),
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
