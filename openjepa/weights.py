"""Finished encoders: written at the end of a run, read back for evaluation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from openjepa import checkpoint, config, distributed
from openjepa.config import Pretrain
from openjepa.durable import replacing
from openjepa.encoder import Encoder
from openjepa.sharding import like, whole
from openjepa.types import Method, Mistake

FILE = "encoder.safetensors"
CONTEXT, TARGET = "context_encoder.", "target_encoder."


class Trained(NamedTuple):
    """An encoder in evaluation mode, and the config it was made by (its `data` cuts pictures into tokens)."""

    encoder: Encoder
    config: Pretrain
    step: int


def export(method: Method, settings: Pretrain, step: int, folder: Path) -> Path:
    """Writes the target encoder, which the paper evaluates, under timm's names, with the config beside it.

    All processes call it, the main one writes.
    """
    state = {name: whole(x.detach()).cpu().contiguous() for name, x in method.encoder("target").state_dict().items()}
    if not distributed.is_main():
        return folder
    plain = config.to_json(dataclasses.replace(settings, out=Path(), init_from=None))
    with replacing(folder / FILE) as temporary:
        save_file(state, temporary, {"step": str(step)})
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(plain, indent=1))
    return folder


def load(folder: Path, which: str = "target") -> Trained:
    """The encoder of a run (its newest good checkpoint) or of an export. Mistake in a sentence if there is none."""
    settings = config.load(folder)
    if (folder / FILE).is_file():
        if which != "target":
            raise Mistake(f"{folder} is an export, which holds the target encoder alone: give the run's folder")
        return Trained(filled(settings, load_file(folder / FILE)), settings, settings.steps)
    for path in checkpoint.steps(folder / "checkpoints"):
        loaded = checked(path)
        method = settings.method.build(settings.data)
        method.load_state_dict(loaded.model)
        return Trained(method.encoder(which).eval().requires_grad_(False), settings, loaded.step)
    raise Mistake(f"{folder} has no checkpoint yet: let the run go on with jepa pretrain --out {folder} --resume yes")


def checked(path: Path) -> checkpoint.Loaded:
    """A checkpoint. Mistake if it is damaged."""
    try:
        return checkpoint.read(path)
    except checkpoint.DAMAGE as error:
        raise Mistake(f"checkpoint {path} is damaged ({error}): resume the run, which takes the one before") from error


def untrained(settings: Pretrain) -> Encoder:
    """The encoder as the run's seed makes it; a run with --init-from began elsewhere."""
    return settings.method.build(settings.data, settings.seed).encoder("target").eval()


def filled(settings: Pretrain, state: dict[str, torch.Tensor]) -> Encoder:
    encoder = settings.method.encoder(settings.data)
    encoder.load_state_dict(state)
    return encoder.eval().requires_grad_(False)


def initialise_from(method: nn.Module, folder: Path) -> list[str]:
    """Loads another run's weights, all that fit in name and shape; returns what did not, a sentence for each tensor.

    Where theirs had one encoder, as a masked autoencoder has, it becomes the target encoder, too.
    """
    path = next(iter(checkpoint.steps(folder / "checkpoints")), None)
    if path is None:
        raise Mistake(f"{folder} has no checkpoint to start from: give a run's folder to --init-from")
    theirs, mine = checked(path).model, method.state_dict()
    if not any(name.startswith(TARGET) for name in theirs) and any(name.startswith(TARGET) for name in mine):
        theirs |= {TARGET + name.removeprefix(CONTEXT): x for name, x in theirs.items() if name.startswith(CONTEXT)}
    fitting = {name: value for name, value in theirs.items() if name in mine and mine[name].shape == value.shape}
    method.load_state_dict({name: like(value, mine[name]) for name, value in fitting.items()}, strict=False)
    if not any(name.startswith((CONTEXT, TARGET)) for name in fitting):
        raise Mistake(
            f"nothing of the encoder in {folder} fits this one: give a run of the same encoder to --init-from"
        )
    return [
        unfit(name, theirs.get(name), mine.get(name)) for name in sorted((mine.keys() | theirs.keys()) - fitting.keys())
    ]


def unfit(name: str, theirs: torch.Tensor | None, mine: torch.Tensor | None) -> str:
    """Why a tensor was not taken over."""
    there, here = ("×".join(map(str, x.shape)) if x is not None else "" for x in (theirs, mine))
    if there and here:
        return f"{name} is {there} there and {here} here"
    return f"{name} is only {'there' if there else 'here, and begins as the seed makes it'}"
