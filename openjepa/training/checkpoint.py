"""Write and read checkpoints: safetensors and JSON in a folder that appears by one rename."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn

from openjepa.core.console import warn
from openjepa.core.distributed import distribute_like, full_tensor, is_main
from openjepa.core.errors import UserError
from openjepa.core.fileio import fsync_path, make_folder, read_json, sha256_of_file, write_durable
from openjepa.training.optim import optimizer_state_shapes

FORMAT = 1

MAX_SHARD_BYTES = 2**29  # bytes in a file

SHARD_PATTERN = re.compile(r"(model|optimizer)(-\d+)?\.safetensors")

STEP_PATTERN = re.compile(r"step-(\d+)")

DAMAGE_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    SafetensorError,
)  # what reading a damaged checkpoint can raise


class Snapshot(NamedTuple):
    """A run as it was after a step: copies in memory, which training does not touch."""

    step: int  # steps taken
    parts: dict[str, dict[str, Tensor]]  # "model" and "optimizer"


class Checkpoint(NamedTuple):
    """A checkpoint that has been checked against its hashes."""

    step: int  # steps taken
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def take_snapshot(step: int, method: nn.Module, optimizer: torch.optim.Optimizer) -> Snapshot:
    """Copies weights and moments: all that a step waits for when it is saved in the background.

    All processes call it, since what is spread over them is put together, one tensor at a time; the main one has the copies.
    """
    parts = {"model": method.state_dict(), "optimizer": optimizer_state(method, optimizer)}
    return Snapshot(step, {part: copy_to_cpu(tensors) for part, tensors in parts.items()})


def copy_to_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    copies = {}
    for name, tensor in tensors.items():
        complete = full_tensor(tensor.detach())
        if is_main():
            copies[name] = complete.to("cpu", copy=True)
    return copies


def save_checkpoint(folder: Path, taken: Snapshot) -> Path:
    """Writes a checkpoint below `folder` and returns its place. OSError leaves nothing behind but the older ones."""
    final = folder / f"step-{taken.step:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    if final.exists():
        return final
    try:
        make_folder(folder)
        shutil.rmtree(temporary, ignore_errors=True)  # of a process killed before, which may have borne our number
        temporary.mkdir()
        number = uuid.uuid4().hex  # in every shard, so that shards of two saves cannot be mixed
        hashes = {
            name: write_durable(temporary / name, serialised(shard, {"save": number}))
            for part, own in taken.parts.items()
            for name, shard in split_into_shards(part, own)
        }
        state = {"format": FORMAT, "step": taken.step, "save": number, "sha256": hashes}
        write_durable(temporary / "state.json", json.dumps(state, indent=1).encode())
        fsync_path(temporary)
        temporary.rename(final)
        fsync_path(folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def split_into_shards(part: str, tensors: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """A part in files of at most SHARD bytes, or of one larger tensor: the memory that writing it takes."""
    pieces: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if pieces[-1] and sum(x.nbytes for x in pieces[-1].values()) + tensor.nbytes > MAX_SHARD_BYTES:
            pieces.append({})
        pieces[-1][name] = tensor.contiguous()
    for place, piece in enumerate(pieces):
        yield f"{part}{f'-{place + 1}' if place else ''}.safetensors", piece


def optimizer_state(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state under the parameters' names."""
    names: dict[Any, str] = {parameter: name for name, parameter in method.named_parameters()}
    state = optimizer.state.items()
    return {f"{names[parameter]}:{key}": value for parameter, own in state for key, value in own.items()}


def restore_checkpoint(loaded: Checkpoint, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts weights and moments back. Mistake, naming the first difference, if the networks are not the same."""
    mine = method.state_dict()
    check_same_tensors(tensor_shapes(mine), tensor_shapes(loaded.model))
    trained = {name: x for name, x in method.named_parameters() if x.requires_grad}
    if loaded.optimizer:  # else no step was ever taken
        wanted = optimizer_state_shapes(optimizer)
        check_same_tensors(
            {f"{name}:{key}": shape for name, x in trained.items() for key, shape in wanted[x].items()},
            tensor_shapes(loaded.optimizer),
        )
    method.load_state_dict({name: distribute_like(value, mine[name]) for name, value in loaded.model.items()})
    for name, value in loaded.optimizer.items():
        parameter, key = trained[name.rpartition(":")[0]], name.rpartition(":")[2]
        optimizer.state[parameter][key] = (
            value.to(parameter.device) if key == "step" else distribute_like(value, parameter)
        )


def tensor_shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in tensors.items()}


def check_same_tensors(mine: dict[str, tuple[int, ...]], theirs: dict[str, tuple[int, ...]]) -> None:
    """Mistake, naming the first difference, unless two networks have the same tensors."""
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            raise UserError(
                f"the checkpoint is of another network: {name} is {theirs.get(name)} there and {mine.get(name)} here"
            )


def list_checkpoints(folder: Path) -> list[Path]:
    """The published checkpoints, newest first, by step and not by time."""
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := STEP_PATTERN.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint whose contents are what was saved; a damaged one is named, set aside, and the one before taken.

    None if there never was one. Mistake if there are some and all are damaged: never a silent fresh start.
    """
    for path in list_checkpoints(folder):
        try:
            return read_checkpoint(path)
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
                raise UserError(
                    f"checkpoint {path} cannot be read ({error.strerror}): mend its permissions or its disk; nothing was changed"
                ) from error
            set_aside(path, error)
        except DAMAGE_ERRORS as error:
            set_aside(path, error)
    if list(folder.glob("damaged-*")):
        raise UserError(
            f"every checkpoint in {folder} is damaged: nothing to resume from; start again with another --out"
        )
    return None


def set_aside(path: Path, error: Exception) -> None:
    """Renames a damaged checkpoint and says so; renamed back, it is tried again."""
    aside = path.with_name(f"damaged-{path.name}-{uuid.uuid4().hex[:6]}")
    path.rename(aside)
    warn(f"checkpoint {path.name} is damaged ({error}); set aside as {aside.name}")


class Manifest(NamedTuple):
    """What state.json says."""

    step: int
    save: str  # the number of this save, which every shard bears, too
    sha256: dict[str, str]  # of each shard


def read_manifest(path: Path) -> Manifest:
    """What a checkpoint says it is, nothing believed that a file could lie about. ValueError if it cannot be so."""
    content = read_json(path / "state.json")
    if content.get("format") != FORMAT:
        raise ValueError(f"format {content.get('format')}, this version reads {FORMAT}")
    step, save, hashes = content.get("step"), content.get("save"), content.get("sha256")
    if type(step) is not int or path.name != f"step-{step:08d}" or not isinstance(save, str):
        raise ValueError("state.json is of another checkpoint")
    if not isinstance(hashes, dict) or not all(map(SHARD_PATTERN.fullmatch, hashes)):
        raise ValueError("state.json lists no shards")
    return Manifest(step, save, hashes)


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint, checked against its hashes before anything is believed."""
    said, parts = read_manifest(path), dict[str, dict[str, Tensor]](model={}, optimizer={})
    for name, expected in said.sha256.items():
        if sha256_of_file(path / name) != expected:
            raise ValueError(f"{name} is not what was saved")
        parts[name.split(".")[0].split("-")[0]] |= read_shard(path / name, said.save)
    if not all(bool(x.isfinite().all()) for x in parts["model"].values()):
        raise ValueError("its weights are not finite")
    return Checkpoint(said.step, parts["model"], parts["optimizer"])


def read_shard(file: Path, number: str) -> dict[str, Tensor]:
    with safe_open(file, "pt") as opened:
        if (opened.metadata() or {}).get("save") != number:
            raise ValueError(f"{file.name} belongs to another save")
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def prune_checkpoints(folder: Path, keep_last: int, keep_every: int) -> None:
    """Removes all but the last few and every n-th; and what a killed save or removal left behind."""
    for path in list_checkpoints(folder)[max(1, keep_last) :]:
        if not keep_every or int(path.name.removeprefix("step-")) % keep_every:
            path.rename(folder / f".{path.name}.old")  # a checkpoint is there whole or not at all, when it goes, too
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)
