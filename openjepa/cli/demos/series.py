"""Generate signals, train an encoder on them without labels, and probe it: which of four frequencies a signal has."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from openjepa.cli.pretrain import pretrain
from openjepa.cli.settings import Demo
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.types import Score
from openjepa.data.synthetic.sines import write_sines
from openjepa.evaluation.measure import measure_encoders
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.interop.pretrained import load_run
from openjepa.modalities.series import Series
from openjepa.recipes.series import tune_for_series
from openjepa.training.budget import limit_to_budget
from openjepa.training.config import Pretrain
from openjepa.viz.canvas import save_figure
from openjepa.viz.features import BASIS_IMAGES, features_figure
from openjepa.viz.inputs import read_images

LENGTH, WINDOW = 256, 8  # time steps of a crop and of a token

NOISE = 1.0  # standard deviation of the noise that is added; that of the sines is about 0.7

HELD_OUT = 10_000_000  # number of the first test signal; training signals have lower numbers

SHOWN = 6  # signals in the figure

DEFAULTS: dict[str, Any] = {"samples": 2_000, "labeled": 2_000, "test": 1_000, "epochs": 32.0, "budget": "2m"}


def series(settings: Demo) -> list[Score]:
    """Return the accuracies of the trained encoder, the untrained one and the baselines."""
    folder = settings.out / "signals"
    write_signals(folder, settings)
    if not (settings.out / "run" / "export" / "config.json").exists():
        config = dataclasses.replace(demo_config(settings, folder), resume="if-any", report=False)
        pretrain(limit_to_budget(config, settings.budget))
    trained = dataclasses.replace(load_run(settings.out / "run" / "export"), name="this encoder")
    labeled = LabeledData(root=(str(folder),))
    probes = ProbeSettings(data=labeled, probes=("logistic", "knn"), seed=settings.seed, device="cpu")
    measured = measure_encoders([trained, trained.untrained()], probes, pixels=True)  # type: ignore[misc]
    return [each.score for each in measured.results] if measured else []


def describe_split(settings: Demo) -> str:
    """Return on what the probes were trained and tested."""
    labeled = min(settings.labeled, settings.samples)
    return f"{labeled:,} signals with labels to train on, {settings.test:,} other signals to test"


def draw(settings: Demo) -> None:
    """Draw test signals, and below them the first principal components of their tokens' features as colors."""
    trained = load_run(settings.out / "run" / "export")
    signals = read_images((str(settings.out / "signals" / "test"),), trained.data, BASIS_IMAGES, SHOWN)
    file = save_figure(features_figure(trained, signals), settings.out / "features.png")
    info(f"figure     {file}: signals, and the features of their tokens as colors")


def write_signals(folder: Path, settings: Demo) -> None:
    """Write files like a user's: train/ and test/ with a folder per frequency, unlabeled/ with all other signals.

    Raises UserError if the folder holds another number of signals.
    """
    labeled = min(settings.labeled, settings.samples)
    rest = settings.samples - labeled
    for name, count, first in (("train", labeled, 0), ("unlabeled", rest, labeled), ("test", settings.test, HELD_OUT)):
        part, unfinished = folder / name, folder / f"{name}-unfinished"
        if count and not part.exists():
            write_sines(unfinished, count, 1, LENGTH, settings.seed, first, NOISE)
            unfinished.rename(part)
        stored = len(list(part.glob("*/*.npy")))
        if stored != count:
            raise UserError(f"{part} has {stored} signals of an earlier demo, not {count}: give another --out")


def demo_config(settings: Demo, folder: Path) -> Pretrain:
    """Return the settings that are chosen for signals of this length, for the training signals."""
    root = tuple(str(folder / name) for name in ("train", "unlabeled") if (folder / name).exists())
    whole = 2 * LENGTH  # of a file: training crops start anywhere in it, evaluation has the first crop alone
    config = tune_for_series(Series(root=root, length=LENGTH, window=WINDOW, stride=whole))
    batch = min(config.batch_size, settings.samples)
    return dataclasses.replace(
        config, epochs=settings.epochs, batch_size=batch, seed=settings.seed, out=settings.out / "run"
    )
