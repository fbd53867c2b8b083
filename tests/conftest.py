"""Fixtures and tiny settings that many tests share; array shapes in annotations are checked in every test run."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

from jaxtyping import install_import_hook

install_import_hook("openjepa", "beartype.beartype")

import dataclasses
import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from openjepa.cli import pretrain as command
from openjepa.data.synthetic.scenes import render
from openjepa.evaluation.probes import logistic
from openjepa.masking.multiblock import MultiBlock
from openjepa.methods.decoder import Decoder
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.methods.vicreg import VICReg
from openjepa.modalities.image import Image
from openjepa.modalities.series import Series
from openjepa.training import budget
from openjepa.training import run as runs
from openjepa.training import setup as preparing
from openjepa.training.config import Pretrain
from openjepa.training.device import Device
from openjepa.training.optim import Optim
from tests.small import DRAW_TRAINING_CURVES, STRENGTHS, small

torch.set_num_threads(1)
# A forked child must not garbage-collect objects of earlier tests: it lacks onnxruntime's threads, and would crash or
# wait for them.
os.register_at_fork(before=gc.freeze, after_in_parent=gc.unfreeze)


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    """Pretend to have one core, and shorten everything that is not under test."""
    torch.set_num_threads(1)
    for module in (runs, preparing, budget):
        monkeypatch.setattr(module, "available_cores", lambda: 1)
    small(monkeypatch.setattr)


@pytest.fixture
def every_strength(monkeypatch):
    monkeypatch.setattr(logistic, "STRENGTHS", STRENGTHS)


@pytest.fixture
def curves(monkeypatch):
    """Draw the curves of a run, which tests skip otherwise."""
    monkeypatch.setattr(command, "draw_training_curves", DRAW_TRAINING_CURVES)


MODALITIES = {
    "image": Image(size=(32, 32), patch=4, mean=(0.5,) * 3, std=(0.25,) * 3),
    "rectangle": Image(size=(24, 48), patch=4, mean=(0.5,) * 3, std=(0.25,) * 3),
    "series": Series(length=256, window=8),
}
METHODS = {
    "released": JEPA(dim=48, depth=2, num_heads=2, predictor_dim=24, predictor_depth=1),
    "averaged": JEPA(
        dim=48, depth=3, num_heads=2, predictor_dim=24, predictor_depth=1, target_layers=(0, 1, 2), standardize=True
    ),
    "joined": JEPA(
        dim=48, depth=3, num_heads=2, predictor_dim=24, predictor_depth=1, target_layers=(0, 2), target_join="concat"
    ),
    "pixels": JEPA(
        dim=48, depth=2, num_heads=2, predictor_dim=24, predictor_depth=1, standardize=True, pixel_loss_weight=0.5
    ),
    "mae": MAE(dim=48, depth=2, num_heads=2, predictor_dim=24, predictor_depth=1, normalize_targets=False),
    "rotary": JEPA(
        dim=48,
        depth=2,
        num_heads=2,
        predictor_dim=24,
        predictor_depth=1,
        positions="rope",
        center=True,
        whiten=0.5,
        init="scaled",
        stem_init="scaled",
        standardize=True,
    ),
    "shared": JEPA(dim=48, depth=2, num_heads=2, predictor_dim=24, predictor_depth=2, predictor_context="shared"),
    "gaussian": JEPA(dim=48, depth=2, num_heads=2, predictor_dim=24, predictor_depth=1, sigreg_weight=0.5),
    "vicreg": VICReg(dim=48, depth=2, num_heads=2, predictor_dim=64, predictor_depth=2),
    "decoder": Decoder(
        dim=48, depth=2, num_heads=2, predictor_dim=24, predictor_depth=1, decoder_dim=48, decoder_depth=2
    ),
    "decoder of predictions": Decoder(
        dim=48,
        depth=2,
        num_heads=2,
        predictor_dim=24,
        predictor_depth=1,
        condition="prediction",
        decoder_dim=48,
        decoder_depth=2,
    ),
    "squared": JEPA(dim=48, depth=2, num_heads=2, predictor_dim=24, predictor_depth=1, loss="squared_l2"),
}
TINY = METHODS["averaged"]
CPU = Device(torch.device("cpu"), bf16=False)
slow = pytest.mark.slow  # a quicker case of the same test covers most of it; run by make test-all


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Write 96 rendered 32×32 scenes as PNG files into three folders."""
    folder = tmp_path_factory.mktemp("photos")
    scenes = render(96, (32, 32), seed=7)
    for number, image in enumerate(scenes.image):
        part = folder / f"class{number % 3}"
        part.mkdir(exist_ok=True)
        Pillow.fromarray(image.permute(1, 2, 0).numpy()).save(part / f"{number:03d}.png")
    return folder


@pytest.fixture
def tiny(photos, tmp_path) -> Pretrain:
    """Return the settings of a run of 12 steps that takes a second or two."""
    return Pretrain(
        data=Image(root=(str(photos),), size=(32, 32), patch=4),
        method=TINY,
        masks=MultiBlock(),
        optim=Optim(warmup=0.1, ema_momentum=0.99),
        steps=12,
        batch_size=16,
        device="cpu",
        precision="fp32",
        threads=1,
        workers=0,
        log_every=2,
        save_every=5,
        out=tmp_path / "run",
        report=False,
    )


def numbers(*values: int) -> np.ndarray:
    return np.array(values)


replace = dataclasses.replace
