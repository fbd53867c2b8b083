"""Load the frozen encoders of earlier runs that a method learns from, and check that they have not changed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from openjepa.core.errors import UserError
from openjepa.core.fileio import read_json
from openjepa.methods.base import FrozenTeacher
from openjepa.training.config import Pretrain, load_config
from openjepa.training.run_folder import ENCODER_FILE, load_newest_method, load_weights_into


def attach_teachers(settings: Pretrain, method: Any, device: torch.device) -> None:
    """Give the method the frozen encoders that its settings name. They are not part of its weights or checkpoints."""
    for name, folder in settings.method.teachers().items():
        teacher = load_teacher(name, folder)
        teacher.encoder.to(device)
        check_unchanged(settings, name, folder, teacher.fingerprint)
        method.teachers[name] = teacher


def load_teacher(name: str, folder: str) -> FrozenTeacher:
    """Load the default encoder of a run or an export, frozen. Raises UserError if the folder holds no encoder."""
    if not folder:
        raise UserError(f"the method needs a frozen teacher: give the folder of an earlier run, --method.{name} RUN")
    path = Path(folder)
    settings = load_config(path)
    if (path / ENCODER_FILE).is_file():
        encoder = load_weights_into(settings.method.build_encoder(settings.data), path / ENCODER_FILE)
    else:
        encoder = load_newest_method(path, settings)[0].encoder()
    return FrozenTeacher(encoder, settings.data, fingerprint(encoder))


def fingerprint(network: nn.Module) -> str:
    """Hash the weights of a network."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def check_unchanged(settings: Pretrain, name: str, folder: str, now: str) -> None:
    """Raise UserError if the run that is resumed began with another teacher."""
    file = settings.out / "data.json"
    before = read_json(file).get("teachers", {}).get(name) if file.is_file() else None
    if before not in (None, now) and not settings.allow_data_change:
        raise UserError(
            f"the teacher {folder} has changed since the run started: restore its weights, "
            "or add --allow-data-change (the run is then not bit-exact)"
        )
