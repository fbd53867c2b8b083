"""Render scenes, train an encoder on them without labels, and probe it: count, nearest distance, kind of objects."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow
from rich.progress import track

from openjepa.cli.pretrain import pretrain
from openjepa.cli.settings import Demo
from openjepa.core.console import console, info
from openjepa.core.types import Score
from openjepa.data.image_files import ImageArray
from openjepa.data.synthetic.scenes import CHUNK, TASKS, Scenes, render
from openjepa.evaluation.demo_scores import FeaturePair, TaskLabels, measure_tasks
from openjepa.evaluation.features import compute_features, raw_pixel_features
from openjepa.interop.pretrained import PretrainedEncoder, load_run, untrained_encoder
from openjepa.modalities.image import Image
from openjepa.recipes.image_small import small_jepa, tune_for_folders
from openjepa.training.budget import limit_to_budget
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.viz.canvas import save_figure
from openjepa.viz.features import BASIS_IMAGES, features_figure
from openjepa.viz.inputs import ImageBatch

SIDE = 48  # width and height of a scene in pixels

HELD_OUT = 10_000_000  # first number of the test scenes; training scenes have lower numbers

DEFAULTS: dict[str, Any] = {"samples": 8_000, "labeled": 8_000, "test": 2_000, "epochs": 32.0, "budget": "5m"}


def scenes(settings: Demo) -> list[Score]:
    """Return the accuracy per task of the trained encoder, the untrained encoder and raw pixels."""
    folder = settings.out / "scenes"
    train = render_scenes(folder, settings)
    config = demo_config(settings, folder)
    if not (settings.out / "run" / "export" / "config.json").exists():
        config = dataclasses.replace(config, resume="if-any", report=False)  # the demo writes one with its scores
        pretrain(limit_to_budget(config, settings.budget))
    trained = load_run(settings.out / "run" / "export")
    labeled = Scenes(*(part[: settings.labeled] for part in train))
    return measure_features(trained, labeled, held_out_scenes(settings), settings.seed)


def describe_split(settings: Demo) -> str:
    """Return on what the probes were trained and tested."""
    labeled = min(settings.labeled, settings.samples)
    return f"{labeled:,} scenes with labels to train on, {settings.test:,} other scenes to test"


def draw(settings: Demo) -> None:
    """Draw held-out scenes and the features of their patches as colors."""
    trained, test = load_run(settings.out / "run" / "export"), held_out_scenes(settings)
    figure = features_figure(trained, upscale_scenes(trained, test), foreground=True)
    file = save_figure(figure, settings.out / "features.png")
    info(f"figure     {file}: scenes, and the features of their patches as colors")


def held_out_scenes(settings: Demo) -> Scenes:
    """Render the held-out scenes."""
    return render(settings.test, (SIDE, SIDE), settings.seed, first=HELD_OUT)


def upscale_scenes(trained: PretrainedEncoder, test: Scenes) -> ImageBatch:
    """Return held-out scenes at twice the size, which gives more patches per object; the figure shows six of them."""
    view = test.image[:BASIS_IMAGES]
    size = (2 * SIDE, 2 * SIDE)
    large = torch.nn.functional.interpolate(view.float(), size, mode="bilinear", antialias=True).round().to(torch.uint8)
    blank = ("",) * len(view)
    data = dataclasses.replace(trained.data, size=size)
    return ImageBatch(large, blank, blank, data, len(test.image)).move_to_front(6)


def demo_config(settings: Demo, folder: Path) -> Pretrain:
    """Return the settings that are chosen for a folder on a CPU: a ViT of width 192 and depth 6; here on a 6×6 grid."""
    method = small_jepa()
    data = Image(root=(str(folder),), size=(SIDE, SIDE), patch=8)
    return tune_for_folders(
        Pretrain(data, method, epochs=settings.epochs, seed=settings.seed, out=settings.out / "run"), method
    )


def render_scenes(folder: Path, settings: Demo) -> Scenes:
    """Render the training scenes and write them as PNG files, like a user's images."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for first in track(
        range(0, settings.samples, CHUNK), "rendering scenes", console=console, disable=not console.is_terminal
    ):
        part = render(min(CHUNK, settings.samples - first), (SIDE, SIDE), settings.seed, first)
        for number, image in enumerate(part.image, first):
            file = folder / f"{number:06d}.png"
            if not file.exists():
                Pillow.fromarray(image.permute(1, 2, 0).numpy()).save(file, compress_level=1)
        parts.append(part)
    return Scenes(*(torch.cat(part) for part in zip(*parts, strict=True)))


def measure_features(trained: PretrainedEncoder, labeled: Scenes, test: Scenes, seed: int) -> list[Score]:
    """Return the accuracy of logistic regression on three kinds of features, and of the most frequent class."""
    config = trained.config.data
    sets = [ImageArray(config, part.image, part.count, "scenes") for part in (labeled, test)]  # type: ignore[arg-type]
    device = choose_device("cpu")
    encoders = {"this encoder": trained, "before training": untrained_encoder(trained.config)}
    features = {
        name: FeaturePair(*(compute_features(encoder, part, device)["last"] for part in sets))
        for name, encoder in encoders.items()
    }
    features["raw pixels"] = FeaturePair(*(raw_pixel_features(part)["last"] for part in sets))
    labels = {task: TaskLabels(getattr(labeled, task), getattr(test, task), TASKS[task]) for task in TASKS}
    return measure_tasks("scenes", features, labels, seed)
