"""Finished encoders: written at the end of a run, read back for evaluation."""

from __future__ import annotations

from pathlib import Path

from openjepa.core.errors import UserError
from openjepa.nn.predictor import Predictor
from openjepa.nn.vit import ViT
from openjepa.trained import Trained
from openjepa.training.config import Pretrain, load_config
from openjepa.training.run_folder import (
    CONTEXT_FILE,
    ENCODER_FILE,
    PREDICTOR_FILE,
    load_newest_method,
    load_weights_into,
    read_provenance,
    read_step_metadata,
)


def load(folder: Path, which: str = "target") -> Trained:
    """The encoder of a run (its newest good checkpoint) or of an export. Mistake in a sentence if there is none."""
    settings = load_config(folder)
    if (folder / ENCODER_FILE).is_file():
        return exported(folder, settings, which)
    method, step = load_newest_method(folder, settings)
    predictor = getattr(method, "predictor", None)  # of joint embedding it is an expander
    predictor = predictor if isinstance(predictor, Predictor) else None
    return Trained(method.encoder(which), settings, step, predictor, read_provenance(folder))


def exported(folder: Path, settings: Pretrain, which: str) -> Trained:
    """What a folder of weights holds."""
    file = folder / (ENCODER_FILE if which == "target" else CONTEXT_FILE)
    if not file.is_file():
        raise UserError(f"{folder} is an export, which holds the target encoder alone: give the run's folder")
    predictor = None
    if (folder / PREDICTOR_FILE).is_file():
        predictor = load_weights_into(settings.method.predictor(settings.data), folder / PREDICTOR_FILE)  # type: ignore[union-attr]
    encoder = load_weights_into(settings.method.encoder(settings.data), file)
    step = int(read_step_metadata(file).get("step", settings.steps))
    return Trained(encoder, settings, step, predictor, read_provenance(folder))


def untrained(settings: Pretrain) -> ViT:
    """The encoder as the run's seed makes it; a run with --init-from began elsewhere."""
    return settings.method.build(settings.data, settings.seed).encoder("target").eval()
