"""Checkpoints that are there whole or not at all: safetensors and JSON in a folder published by one rename.

runs/photos/checkpoints/step-00000500/{model.safetensors, optimizer.safetensors, state.json}
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from openjepa.log import warn
from openjepa.types import Mistake

FORMAT = 1
NAME = re.compile(r"step-(\d+)")
DAMAGE = (OSError, ValueError, KeyError, TypeError, SafetensorError)  # what reading a damaged checkpoint can raise


class Loaded(NamedTuple):
    """A checkpoint that has been checked against its hashes."""

    step: int  # steps taken
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def save(folder: Path, step: int, method: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    """Writes a checkpoint below `folder` and returns its place. OSError leaves nothing behind but the older ones."""
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    if final.exists():
        return final
    folder.mkdir(parents=True, exist_ok=True)
    try:
        temporary.mkdir()
        number = uuid.uuid4().hex  # in every shard, so that shards of two saves cannot be mixed
        parts = {"model": method.state_dict(), "optimizer": moments(method, optimizer)}
        hashes = {
            f"{name}.safetensors": write(temporary / f"{name}.safetensors", part, number)
            for name, part in parts.items()
        }
        state = {"format": FORMAT, "step": step, "save": number, "sha256": hashes}
        with (temporary / "state.json").open("w") as stream:
            json.dump(state, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        flush_folder(temporary)
        temporary.rename(final)
        flush_folder(folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def write(file: Path, tensors: dict[str, Tensor], number: str) -> str:
    """Saves tensors durably and returns the file's SHA-256."""
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file, {"save": number}
        )
    except SafetensorError as error:
        raise OSError(f"{file} cannot be written: {error}") from error
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
    return digest(file)


def digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush_folder(folder: Path) -> None:
    """Makes names durable, not only contents."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def moments(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state under the parameters' names."""
    names: dict[Any, str] = {parameter: name for name, parameter in method.named_parameters()}
    state = optimizer.state.items()
    return {f"{names[parameter]}:{key}": value for parameter, own in state for key, value in own.items()}


def restore(loaded: Loaded, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts weights and moments back. Mistake, naming the first difference, if the networks are not the same."""
    mine = {name: tuple(tensor.shape) for name, tensor in method.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in loaded.model.items()}
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            raise Mistake(
                f"the checkpoint is of another network: {name} is {theirs.get(name)} there and {mine.get(name)} here"
            )
    method.load_state_dict(loaded.model)
    for name, parameter in method.named_parameters():
        own = {
            key.rpartition(":")[2]: value for key, value in loaded.optimizer.items() if key.rpartition(":")[0] == name
        }
        if own:
            optimizer.state[parameter] = {
                k: v if k == "step" and v.device == parameter.device else v.to(parameter.device) for k, v in own.items()
            }


def steps(folder: Path) -> list[Path]:
    """The published checkpoints, newest first, by step and not by time."""
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def newest(folder: Path) -> Loaded | None:
    """The newest checkpoint whose contents are what was saved; a damaged one is named, set aside, and the one before taken.

    None if there never was one. Mistake if there are some and all are damaged: never a silent fresh start.
    """
    candidates = steps(folder)
    for path in candidates:
        try:
            return read(path)
        except DAMAGE as error:
            aside = path.with_name(f"damaged-{path.name}-{uuid.uuid4().hex[:6]}")
            path.rename(aside)
            warn(f"checkpoint {path.name} is damaged ({error}); set aside as {aside.name}")
    if candidates or list(folder.glob("damaged-*")):
        raise Mistake(
            f"every checkpoint in {folder} is damaged: nothing to resume from; start again with another --out"
        )
    return None


def read(path: Path) -> Loaded:
    """A checkpoint, checked against its hashes before anything is believed."""
    state = json.loads((path / "state.json").read_text())
    if state["format"] != FORMAT:
        raise ValueError(f"format {state['format']}, this version reads {FORMAT}")
    parts = {}
    for name, expected in state["sha256"].items():
        if digest(path / name) != expected:
            raise ValueError(f"{name} is not what was saved")
        parts[name] = tensors(path / name, state["save"])
    return Loaded(int(state["step"]), parts["model.safetensors"], parts["optimizer.safetensors"])


def tensors(file: Path, number: str) -> dict[str, Tensor]:
    with safe_open(file, "pt") as opened:
        if (opened.metadata() or {}).get("save") != number:
            raise ValueError(f"{file.name} belongs to another save")
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def prune(folder: Path, keep_last: int, keep_every: int) -> None:
    """Removes all but the last few and every n-th; and what a killed save left half written."""
    for path in steps(folder)[max(1, keep_last) :]:
        if not keep_every or int(path.name.removeprefix("step-")) % keep_every:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)
