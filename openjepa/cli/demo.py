"""Command `jepa demo`: render scenes, train an encoder on them and measure it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image as Pillow
from rich.progress import track
from rich.table import Table

from openjepa.cli.pretrain import pretrain
from openjepa.core.console import console, info
from openjepa.data.image_files import ImageArray
from openjepa.data.synthetic.scenes import CHUNK, TASKS, Scenes, render
from openjepa.evaluation.features import compute_features, raw_pixel_features
from openjepa.evaluation.probes.logistic import accuracy, logistic_probe
from openjepa.interop.adapters import from_ours, from_untrained
from openjepa.interop.pretrained import PretrainedEncoder, load_run
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.recipes.image_small import for_folders
from openjepa.training.budget import limit_to_budget
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.viz.canvas import save_figure
from openjepa.viz.features import BASIS_IMAGES, features_figure
from openjepa.viz.inputs import ImageBatch

SIDE = 48  # pixels

HELD_OUT = 10_000_000  # scene numbers that no training scene has


@dataclass(frozen=True)
class Demo:
    """Renders scenes, pretrains on them, probes the encoder, and ends with a table and a picture."""

    out: Path = Path("demo")
    scenes: int = 8_000  # unlabelled, to pretrain on; a part of them, labelled, trains the probes
    labelled: int = 8_000
    test: int = 2_000  # scenes of other numbers, seen by nothing before
    epochs: float = 32.0
    budget: str = "5m"  # that pretraining may take: a slow machine learns in fewer epochs
    seed: int = 0


Result = dict[str, dict[str, float]]  # features -> task -> accuracy


def demo(settings: Demo) -> Result:
    """Accuracies of each task for the encoder learnt, the encoder before training and raw pixels; also in out/demo.json."""
    folder = settings.out / "scenes"
    train = render_scenes(folder, settings)
    config = demo_config(settings, folder)
    if not (settings.out / "run" / "export" / "config.json").exists():
        pretrain(limit_to_budget(dataclasses.replace(config, resume="if-any"), settings.budget))
    trained = load_run(settings.out / "run" / "export")

    test = render(settings.test, (SIDE, SIDE), settings.seed, first=HELD_OUT)
    labelled = Scenes(*(part[: settings.labelled] for part in train))
    result = measure_features(trained, labelled, test, settings.seed)
    print_accuracies(result)
    (settings.out / "demo.json").write_text(json.dumps(result, indent=1))
    plate = features_figure(
        from_ours(trained.encoder, trained.config, "this encoder"), upscale_scenes(trained, test), front=True
    )
    picture = save_figure(plate, settings.out / "features.png")
    info(f"picture    {picture}: scenes, and what the encoder's patches have in common, as colours")
    return result


def upscale_scenes(trained: PretrainedEncoder, test: Scenes) -> ImageBatch:
    """Held-out scenes at twice the size, six of them to be shown: an encoder's patches are finer on larger pictures."""
    view = test.image[:BASIS_IMAGES]
    size = (2 * SIDE, 2 * SIDE)
    large = torch.nn.functional.interpolate(view.float(), size, mode="bilinear", antialias=True).round().to(torch.uint8)
    blank = ("",) * len(view)
    data = dataclasses.replace(trained.data, size=size)
    return ImageBatch(large, blank, blank, data, len(test.image)).leading(6)


def demo_config(settings: Demo, folder: Path) -> Pretrain:
    """What is chosen for a folder on a CPU, a ViT of width 192 and depth 6, here on a grid of 6×6."""
    method = JEPA(dim=192, depth=6, num_heads=3, predictor_dim=96)
    data = Image(root=(str(folder),), size=(SIDE, SIDE), patch=8)
    return for_folders(
        Pretrain(data, method, epochs=settings.epochs, seed=settings.seed, out=settings.out / "run"), method
    )


def render_scenes(folder: Path, settings: Demo) -> Scenes:
    """The training scenes, rendered, and written as PNG files as a user's images would be."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for first in track(range(0, settings.scenes, CHUNK), "rendering scenes", console=console):
        part = render(min(CHUNK, settings.scenes - first), (SIDE, SIDE), settings.seed, first)
        for number, image in enumerate(part.image, first):
            file = folder / f"{number:06d}.png"
            if not file.exists():
                Pillow.fromarray(image.permute(1, 2, 0).numpy()).save(file, compress_level=1)
        parts.append(part)
    return Scenes(*(torch.cat(part) for part in zip(*parts, strict=True)))


def measure_features(trained: PretrainedEncoder, labelled: Scenes, test: Scenes, seed: int) -> Result:
    """L2 logistic regression on three kinds of features for each task, its strength chosen on a validation split."""
    config = trained.config.data
    sets = [ImageArray(config, part.image, part.count, "scenes") for part in (labelled, test)]  # type: ignore[arg-type]
    where = choose_device("cpu")
    encoders = {
        "this encoder": from_ours(trained.encoder, trained.config, "this encoder"),
        "before training": from_untrained(trained.config),
    }
    seen = {name: [compute_features(each, part, where)["last"] for part in sets] for name, each in encoders.items()}
    seen["raw pixels"] = [raw_pixel_features(part)["last"] for part in sets]
    result: Result = {}
    for name, (train, held) in seen.items():
        answers = {
            task: logistic_probe(train, getattr(labelled, task), held, classes, seed).predicted
            for task, classes in TASKS.items()
        }
        result[name] = {task: accuracy(each, getattr(test, task)) for task, each in answers.items()}
    chance = {task: getattr(test, task).bincount().max().item() / len(test.count) for task in TASKS}
    return {**result, "most frequent class": chance}


def print_accuracies(result: Result) -> None:
    table = Table("features", *(f"{task} %" for task in TASKS), title="held-out scenes, top-1 accuracy")
    for name, scores in result.items():
        table.add_row(name, *(f"{100 * scores[task]:.1f}" for task in TASKS))
    console.print(table)
