"""Fixtures and tiny settings that many tests share; array shapes in annotations are checked in every test run."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

from tests import shapes

shapes.install()

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from openjepa.cli import pretrain as command
from openjepa.core.console import info_once
from openjepa.core.registry import PLUGINS
from openjepa.data.synthetic.scenes import render
from openjepa.data.value_range import MEASURED
from openjepa.evaluation.probes import logistic
from openjepa.masking.multiblock import MultiBlock
from openjepa.methods.decoder import Decoder
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.methods.vicreg import VICReg
from openjepa.modalities.image import Image
from openjepa.modalities.series import Series
from openjepa.nn.expander import ExpanderConfig
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
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
    shapes.calls.clear()
    info_once.cache_clear()
    MEASURED.clear()
    for module in (runs, preparing, budget):
        monkeypatch.setattr(module, "process_cores", lambda: 1.0)
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
SMALL, SMALL_PREDICTOR = ViTConfig(dim=48, depth=2, num_heads=2), PredictorConfig(dim=24, depth=1)
DEEPER = ViTConfig(dim=48, depth=3, num_heads=2)
SMALL_DECODER = Decoder(SMALL, SMALL_PREDICTOR, decoder_dim=48, decoder_depth=2)
METHODS = {
    "released": JEPA(SMALL, SMALL_PREDICTOR),
    "averaged": JEPA(DEEPER, SMALL_PREDICTOR, target_layers=(0, 1, 2), target_transforms=("standardize",)),
    "pixels": JEPA(SMALL, SMALL_PREDICTOR, target_transforms=("standardize",), pixel_loss_weight=0.5),
    "mae": MAE(SMALL, SMALL_PREDICTOR, normalize_targets=False),
    "rotary": JEPA(
        replace(SMALL, positions="rope", init="scaled", stem_init="scaled"),
        replace(SMALL_PREDICTOR, init="scaled"),
        target_transforms=("center", "standardize"),
    ),
    "vicreg": VICReg(SMALL, ExpanderConfig(dim=64, depth=2)),
    "decoder": SMALL_DECODER,
    "decoder of predictions": replace(SMALL_DECODER, condition="prediction"),
    "squared": JEPA(SMALL, SMALL_PREDICTOR, loss="squared_l2"),
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


@pytest.fixture(scope="module")
def registered():
    """Forget the plug-ins afterwards: tests of other modules list the names that are registered."""
    sources, before = list(PLUGINS.sources), dict(PLUGINS.registered)
    yield
    PLUGINS.sources[:] = sources
    PLUGINS.registered.clear()
    PLUGINS.registered.update(before)


@pytest.fixture(scope="session")
def rooms_run(tmp_path_factory) -> Path:
    """Train two steps of each stage of a tiny world of rooms, and return the folder."""
    from openjepa.training.stages import run_stages
    from tests.worlds import tiny_rooms

    out = tmp_path_factory.mktemp("rooms") / "run"
    with pytest.MonkeyPatch.context() as patch:  # the fixtures of a single test come later
        small(patch.setattr)
        run_stages(tiny_rooms(), out, runs.pretrain)
    return out


@pytest.fixture(scope="session")
def jepa_data() -> Callable[[str], Path]:
    """Return a function that gives a folder of real data by name, such as "series", or skips the test without it."""

    def folder(name: str) -> Path:
        root = os.environ.get("JEPA_DATA")
        if root and (Path(root) / name).is_dir():
            return Path(root) / name
        pytest.skip(f"set JEPA_DATA to a folder with {name}/ unpacked (python -m scripts.unpack_data ARCHIVES FOLDER)")

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
