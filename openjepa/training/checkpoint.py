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
from safetensors.torch import save as serialize
from torch import Tensor, nn

from openjepa.core.console import warn
from openjepa.core.distributed import distribute_like, full_tensor, is_main
from openjepa.core.errors import UserError
from openjepa.core.fileio import fsync_path, make_folder, read_json, sha256_of_file, write_durable
from openjepa.training.optim import optimizer_state_shapes

FORMAT = 1  # of a checkpoint's folder; the settings have their own (migrations.py)

MAX_SHARD_BYTES = 2**29  # largest size of a file, and the memory that writing it takes

SHARD_PATTERN = re.compile(r"(model|optimizer)(-\d+)?\.safetensors")

STEP_PATTERN = re.compile(r"step-(\d+)")

DAMAGE_ERRORS = (OSError, ValueError, KeyError, TypeError, SafetensorError)  # what reading a damaged checkpoint raises


class Snapshot(NamedTuple):
    """The state of a run after a step, copied to memory that training does not touch."""

    step: int  # steps taken
    parts: dict[str, dict[str, Tensor]]  # "model" and "optimizer"


class Checkpoint(NamedTuple):
    """A checkpoint whose files match their hashes."""

    step: int  # steps taken
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def take_snapshot(step: int, method: nn.Module, optimizer: torch.optim.Optimizer) -> Snapshot:
    """Copy weights and optimizer state to CPU memory; training waits only for this copy.

    All processes must call it, because sharded tensors are gathered, one at a time; the main process keeps the copies.
    """
    parts = {"model": method.state_dict(), "optimizer": optimizer_state(method, optimizer)}
    return Snapshot(step, {part: copy_to_cpu(tensors) for part, tensors in parts.items()})


def copy_to_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gather sharded tensors; return copies of all of them on the main process, nothing on the others."""
    copies = {}
    for name, tensor in tensors.items():
        complete = full_tensor(tensor.detach())
        if is_main():
            copies[name] = complete.to("cpu", copy=True)
    return copies


def save_checkpoint(folder: Path, snapshot: Snapshot) -> Path:
    """Write a checkpoint below `folder` and return its path.

    An OSError leaves older checkpoints as they were.
    """
    final = folder / f"step-{snapshot.step:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    if final.exists():
        return final
    try:
        make_folder(folder)
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process that had the same process id
        temporary.mkdir()
        save_id = uuid.uuid4().hex  # in every shard, so that shards of two saves cannot be mixed
        hashes = {
            name: write_durable(temporary / name, serialize(shard, {"save": save_id}))
            for part, tensors in snapshot.parts.items()
            for name, shard in split_into_shards(part, tensors)
        }
        state = {"format": FORMAT, "step": snapshot.step, "save": save_id, "sha256": hashes}
        write_durable(temporary / "state.json", json.dumps(state, indent=1).encode())
        fsync_path(temporary)
        temporary.rename(final)
        fsync_path(folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def split_into_shards(part: str, tensors: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the names and tensors of files of at most MAX_SHARD_BYTES, or of one larger tensor."""
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(x.nbytes for x in shards[-1].values()) + tensor.nbytes > MAX_SHARD_BYTES:
            shards.append({})
        shards[-1][name] = tensor.contiguous()
    for number, shard in enumerate(shards):
        yield f"{part}{f'-{number + 1}' if number else ''}.safetensors", shard


def optimizer_state(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state under names such as `blocks.0.norm1.weight:exp_avg`."""
    names: dict[Any, str] = {parameter: name for name, parameter in method.named_parameters()}
    state = optimizer.state.items()
    return {f"{names[parameter]}:{key}": value for parameter, values in state for key, value in values.items()}


def restore_checkpoint(checkpoint: Checkpoint, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load weights and optimizer state. Raises UserError with the first difference if the networks differ."""
    current = method.state_dict()
    check_same_tensors(tensor_shapes(current), tensor_shapes(checkpoint.model))
    trained = {name: x for name, x in method.named_parameters() if x.requires_grad}
    if checkpoint.optimizer:  # empty if no step was taken
        shapes = optimizer_state_shapes(optimizer)
        check_same_tensors(
            {f"{name}:{key}": shape for name, x in trained.items() for key, shape in shapes[x].items()},
            tensor_shapes(checkpoint.optimizer),
        )
    method.load_state_dict({name: distribute_like(value, current[name]) for name, value in checkpoint.model.items()})
    for name, value in checkpoint.optimizer.items():
        parameter, key = trained[name.rpartition(":")[0]], name.rpartition(":")[2]
        optimizer.state[parameter][key] = (
            value.to(parameter.device) if key == "step" else distribute_like(value, parameter)
        )


def tensor_shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor."""
    return {name: tuple(x.shape) for name, x in tensors.items()}


def check_same_tensors(expected: dict[str, tuple[int, ...]], actual: dict[str, tuple[int, ...]]) -> None:
    """Raise UserError with the first difference unless a file has exactly the tensors of this model."""
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            raise UserError(
                f"the weights are of another network: {name} is {actual.get(name, 'missing')} in the file "
                f"and {expected.get(name, 'missing')} in this model"
            )


def list_checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints by number of steps, the most first."""
    numbered = [(int(match[1]), path) for path in folder.glob("step-*") if (match := STEP_PATTERN.fullmatch(path.name))]
    return [path for _, path in sorted(numbered, reverse=True)]


def load_newest(folder: Path) -> Checkpoint | None:
    """Load the newest valid checkpoint; rename damaged ones, with a warning, and fall back to older ones.

    Returns None if there never was one. Raises UserError if all are damaged: a run never silently starts afresh.
    """
    for path in list_checkpoints(folder):
        try:
            return read_checkpoint(path)
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
                raise UserError(
                    f"checkpoint {path} cannot be read ({error.strerror}): check its permissions and the disk; "
                    "nothing was changed"
                ) from error
            set_aside(path, error)
        except DAMAGE_ERRORS as error:
            set_aside(path, error)
    if list(folder.glob("damaged-*")):
        raise UserError(f"every checkpoint in {folder} is damaged: start a new run with another --out")
    return None


def set_aside(path: Path, error: Exception) -> None:
    """Rename a damaged checkpoint and warn; renamed back, it is tried again."""
    new_path = path.with_name(f"damaged-{path.name}-{uuid.uuid4().hex[:6]}")
    path.rename(new_path)
    warn(f"checkpoint {path.name} is damaged ({error}); renamed to {new_path.name}")


class Manifest(NamedTuple):
    """The contents of a checkpoint's state.json."""

    step: int
    save: str  # the id of this save, which is also in every shard
    sha256: dict[str, str]  # of each shard


def read_manifest(path: Path) -> Manifest:
    """Read the state.json of a checkpoint. Raises ValueError if it does not belong to it."""
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
    """Read a checkpoint and check every file against its hash before using it. Raises DAMAGE_ERRORS."""
    manifest, parts = read_manifest(path), dict[str, dict[str, Tensor]](model={}, optimizer={})
    for name, expected in manifest.sha256.items():
        if sha256_of_file(path / name) != expected:
            raise ValueError(f"{name} does not match its hash")
        parts[name.split(".")[0].split("-")[0]] |= read_shard(path / name, manifest.save)
    if not all(bool(x.isfinite().all()) for x in parts["model"].values()):
        raise ValueError("its weights are not finite")
    return Checkpoint(manifest.step, parts["model"], parts["optimizer"])


def read_shard(file: Path, save_id: str) -> dict[str, Tensor]:
    """Read the tensors of a shard. Raises ValueError if it belongs to another save."""
    with safe_open(file, "pt") as shard:
        if (shard.metadata() or {}).get("save") != save_id:
            raise ValueError(f"{file.name} belongs to another save")
        return {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118


def prune_checkpoints(folder: Path, keep_last: int, keep_every: int) -> None:
    """Delete checkpoints except the last few and every n-th step, and remains of killed saves."""
    for path in list_checkpoints(folder)[max(1, keep_last) :]:
        if not keep_every or int(path.name.removeprefix("step-")) % keep_every:
            path.rename(folder / f".{path.name}.old")  # so that a checkpoint is never there in part while it is deleted
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)
