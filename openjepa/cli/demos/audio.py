"""Generate sounds, train an encoder on them without labels, and probe it: pitch, rhythm, direction, sources."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from openjepa.cli.pretrain import pretrain
from openjepa.cli.settings import Demo
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.types import Score
from openjepa.data.audio_files import AudioArray
from openjepa.data.synthetic.sounds import TASKS, Sounds, render_sounds, write_sounds
from openjepa.evaluation.controls import controlled_encoders
from openjepa.evaluation.demo_scores import FeaturePair, TaskLabels, measure_tasks
from openjepa.evaluation.features import baseline_features, compute_features
from openjepa.interop.pretrained import PretrainedEncoder, load_run, untrained_encoder
from openjepa.modalities.audio import Audio
from openjepa.recipes.audio import tune_for_audio
from openjepa.training.budget import limit_to_budget
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.viz.canvas import save_figure
from openjepa.viz.features import BASIS_IMAGES, features_figure
from openjepa.viz.inputs import read_images

RATE, FRAMES, LONGER = 8000, 96, 1.5  # Hz; frames of a stretch; length of a file in stretches

HELD_OUT = 10_000_000  # number of the first test sound; training sounds have lower numbers

FIGURE_SOUNDS = 6

DEFAULTS: dict[str, Any] = {"samples": 8_000, "labeled": 4_000, "test": 1_000, "epochs": 40.0, "budget": "6m30s"}


def audio(settings: Demo) -> list[Score]:
    """Return the accuracy per task of the trained encoder, with controls, of the untrained encoder and of baselines."""
    folder, config = settings.out / "sounds", demo_config(settings)
    write_training_sounds(folder, settings)
    if not (settings.out / "run" / "export" / "config.json").exists():
        pretrain(limit_to_budget(dataclasses.replace(config, resume="if-any", report=False), settings.budget))
    trained = dataclasses.replace(load_run(settings.out / "run" / "export"), name="this encoder")
    labeled = min(settings.labeled, settings.samples)
    parts = [
        render_sounds(count, RATE, trained.data.samples, settings.seed, first)
        for count, first in ((labeled, 0), (settings.test, HELD_OUT))
    ]
    train, test = parts
    labels = {task: TaskLabels(getattr(train, task), getattr(test, task), TASKS[task]) for task in TASKS}
    return measure_tasks("sounds", all_features(trained, parts), labels, settings.seed)


def all_features(trained: PretrainedEncoder, parts: list[Sounds]) -> dict[str, FeaturePair]:
    """Return the features of the encoder, with controls, of the one before training, and of baselines, by name."""
    data, device = trained.data, choose_device("cpu")
    sets = [AudioArray(data, part.sound[:, None], part.pitch, "sounds") for part in parts]
    controlled = [each.encoder for each in controlled_encoders(trained) if each.trained]
    features = {}
    for encoder in (trained, *controlled, untrained_encoder(trained.config)):
        info(f"probing    {encoder.name}")
        features[encoder.name] = FeaturePair(*(compute_features(encoder, part, device)["last"] for part in sets))
    for name, compute in data.baselines().items():
        features[name] = FeaturePair(*(baseline_features(part, compute)["last"] for part in sets))
    return features


def describe_split(settings: Demo) -> str:
    """Describe the sounds that the probes were trained and tested on."""
    labeled = min(settings.labeled, settings.samples)
    return f"{labeled:,} sounds with labels to train on, {settings.test:,} other sounds to test"


def draw(settings: Demo) -> None:
    """Draw spectrograms and, below them, the first principal components of the patches' features as colors."""
    trained = load_run(settings.out / "run" / "export")
    sounds = read_images((str(settings.out / "sounds"),), trained.data, BASIS_IMAGES, FIGURE_SOUNDS)
    file = save_figure(features_figure(trained, sounds), settings.out / "features.png")
    info(f"figure     {file}: spectrograms, and the features of their patches as colors")


def demo_config(settings: Demo) -> Pretrain:
    """Return the settings that are chosen for a folder of short recordings."""
    data = Audio(root=(str(settings.out / "sounds"),), rate=RATE, frames=FRAMES)
    config = tune_for_audio(data)
    batch = min(config.batch_size, settings.samples)
    return dataclasses.replace(
        config, epochs=settings.epochs, batch_size=batch, seed=settings.seed, out=settings.out / "run"
    )


def write_training_sounds(folder: Path, settings: Demo) -> None:
    """Write the training sounds as WAV files, like a user's, with a table of their labels.

    Raises UserError if the folder holds another number of sounds.
    """
    if not folder.exists():
        info(f"generating {settings.samples:,} sounds in {folder}")
        unfinished = folder.with_name("sounds-unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        samples = round(LONGER * Audio(rate=RATE, frames=FRAMES).samples)
        write_sounds(unfinished, settings.samples, RATE, samples, settings.seed)
        unfinished.rename(folder)
    stored = len(list(folder.glob("*.wav")))
    if stored != settings.samples:
        raise UserError(f"{folder} has {stored} sounds of an earlier demo, not {settings.samples}: give another --out")
