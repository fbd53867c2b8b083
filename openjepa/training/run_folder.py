"""Read and write the networks in a run folder or an export."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from openjepa.core.config import from_plain
from openjepa.core.distributed import distribute_like, full_tensor, is_main
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, read_json
from openjepa.core.protocols import Method
from openjepa.training.checkpoint import (
    DAMAGE_ERRORS,
    Checkpoint,
    check_same_tensors,
    list_checkpoints,
    read_checkpoint,
    tensor_shapes,
)
from openjepa.training.config import Pretrain, to_json

ENCODER_FILE, PROVENANCE_FILE = "encoder.safetensors", "about.json"

CONTEXT_FILE, PREDICTOR_FILE = "context_encoder.safetensors", "predictor.safetensors"  # where they were asked for, too

CONTEXT_PREFIX, TARGET_PREFIX, PREDICTOR_PREFIX = "context_encoder.", "target_encoder.", "predictor."

StateDict = dict[str, torch.Tensor]


def load_method(folder: Path, settings: Pretrain) -> Any:
    """All networks of a run, or of a folder that has them all, as a method of these settings. Mistake if some are missing."""
    method, state = settings.method.build(settings.data), load_all_networks(folder)
    missing = sorted({name.split(".")[0] for name in method.state_dict().keys() - state.keys()})
    if missing:
        raise UserError(
            f"{folder} has no {' and no '.join(missing)}: give the run's folder, or convert a file that has them"
        )
    check_same_tensors(
        tensor_shapes(method.state_dict()), tensor_shapes({name: state[name] for name in method.state_dict()})
    )
    method.load_state_dict({name: state[name] for name in method.state_dict()})
    return method.eval().requires_grad_(False)


def export_encoder(method: Method, settings: Pretrain, step: int, folder: Path) -> Path:
    """Writes the target encoder, which the paper evaluates, under timm's names, with the config beside it.

    All processes call it, the main one writes.
    """
    state = {
        name: full_tensor(x.detach()).cpu().contiguous() for name, x in method.encoder("target").state_dict().items()
    }
    if is_main():
        write_weights(folder, {ENCODER_FILE: state}, settings, step, read_provenance(settings.out))
    return folder


def write_weights(folder: Path, files: dict[str, StateDict], settings: Pretrain, step: int, known: Provenance) -> Path:
    """A folder of weights: the encoder, other networks if they are there, the config, and where it all comes from."""
    plain = to_json(dataclasses.replace(settings, out=Path(), init_from=None))
    for name, state in files.items():
        with atomic_write(folder / name) as temporary:
            save_file(state, temporary, {"step": str(step)})
    if known != Provenance():
        with atomic_write(folder / PROVENANCE_FILE) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(known), indent=1))
    with atomic_write(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(plain, indent=1))
    return folder


def read_provenance(folder: Path) -> Provenance:
    """Where a folder's weights come from; of a run of our own there is nothing to say. Mistake if that is damaged."""
    file = folder / PROVENANCE_FILE
    try:
        return from_plain(Provenance, rename_license(read_json(file))) if file.is_file() else Provenance()
    except ValueError as error:
        raise UserError(
            f"{file} is damaged ({error}): put it back; it says what may be done with the weights"
        ) from error


def copy_provenance(folder: Path, out: Path) -> None:
    """A run that starts from weights of another project stays under their license: says so in the run's folder."""
    known = read_provenance(folder)
    if known != Provenance():
        with atomic_write(out / PROVENANCE_FILE) as temporary:
            notes = (*known.notes, "trained further from these weights")
            temporary.write_text(json.dumps(dataclasses.asdict(known) | {"notes": notes}, indent=1))


def load_newest_method(folder: Path, settings: Pretrain) -> tuple[Any, int]:
    """All networks of a run as its newest checkpoint has them, not to be trained, and its step. Mistake if there is none."""
    for path in list_checkpoints(folder / "checkpoints"):
        loaded = read_valid_checkpoint(path)
        method = settings.method.build(settings.data)
        method.load_state_dict(loaded.model)
        return method.eval().requires_grad_(False), loaded.step
    raise UserError(f"{folder} has no checkpoint yet: let the run go on with jepa pretrain --out {folder} --resume yes")


def read_step_metadata(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return opened.metadata() or {}


def load_weights_into(network: Any, file: Path) -> Any:
    """A network with a file's weights, not to be trained. Mistake in a sentence if they are another's, or damaged."""
    state = read_tensors(file)
    check_same_tensors(tensor_shapes(network.state_dict()), tensor_shapes(state))
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def read_tensors(file: Path) -> StateDict:
    """What a file of weights holds. Mistake if it is damaged."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}): export or convert it again") from error


def read_valid_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint. Mistake if it is damaged."""
    try:
        return read_checkpoint(path)
    except DAMAGE_ERRORS as error:
        raise UserError(
            f"checkpoint {path} is damaged ({error}): resume the run, which takes the one before"
        ) from error


def initialize_from(method: nn.Module, folder: Path) -> list[str]:
    """Loads another run's weights, all that fit in name and shape; returns what did not, a sentence for each tensor or network.

    Where theirs had one encoder, as a masked autoencoder has, it becomes the target encoder, too.
    """
    theirs, mine = load_all_networks(folder), method.state_dict()
    if not any(name.startswith(TARGET_PREFIX) for name in theirs) and any(
        name.startswith(TARGET_PREFIX) for name in mine
    ):
        theirs |= {
            TARGET_PREFIX + name.removeprefix(CONTEXT_PREFIX): x
            for name, x in theirs.items()
            if name.startswith(CONTEXT_PREFIX)
        }
    fitting = {name: value for name, value in theirs.items() if name in mine and mine[name].shape == value.shape}
    method.load_state_dict({name: distribute_like(value, mine[name]) for name, value in fitting.items()}, strict=False)
    if not any(name.startswith((CONTEXT_PREFIX, TARGET_PREFIX)) for name in fitting):
        raise UserError(
            f"nothing of the encoder in {folder} fits this one: give a run of the same encoder to --init-from"
        )
    missing = sorted((mine.keys() | theirs.keys()) - fitting.keys())
    absent = missing_networks(missing, theirs.keys(), mine.keys())
    rest = [name for name in missing if name.split(".")[0] not in absent]
    return [*absent.values(), *(mismatch(name, theirs.get(name), mine.get(name)) for name in rest)]


def missing_networks(missing: list[str], theirs: Iterable[str], mine: Iterable[str]) -> dict[str, str]:
    """A sentence for each network that only one of the two has."""
    there, here = ({name.split(".")[0] for name in names} for names in (theirs, mine))
    counts = Counter(
        name.split(".")[0] for name in missing if (name.split(".")[0] in there) != (name.split(".")[0] in here)
    )
    where = {True: "only here, and begins as the seed makes it", False: "only there"}
    return {name: f"{name}, {count} tensors, is {where[name in here]}" for name, count in counts.items()}


def load_all_networks(folder: Path) -> StateDict:
    """All networks of a run, or of a folder of weights, under the names that a method gives them."""
    path = next(iter(list_checkpoints(folder / "checkpoints")), None)
    if path:
        return read_valid_checkpoint(path).model
    if not (folder / ENCODER_FILE).is_file():
        raise UserError(
            f"{folder} has no checkpoint to start from: give a run's folder to --init-from, or what jepa convert made"
        )
    context = CONTEXT_FILE if (folder / CONTEXT_FILE).is_file() else ENCODER_FILE
    found: StateDict = {}
    for prefix, name in ((TARGET_PREFIX, ENCODER_FILE), (CONTEXT_PREFIX, context), (PREDICTOR_PREFIX, PREDICTOR_FILE)):
        if (folder / name).is_file():
            found |= {prefix + each: x for each, x in read_tensors(folder / name).items()}
    return found


def mismatch(name: str, theirs: torch.Tensor | None, mine: torch.Tensor | None) -> str:
    """Why a tensor was not taken over."""
    there, here = ("×".join(map(str, x.shape)) if x is not None else "" for x in (theirs, mine))
    if there and here:
        return f"{name} is {there} there and {here} here"
    return f"{name} is only {'there' if there else 'here, and begins as the seed makes it'}"


@dataclass(frozen=True)
class Provenance:
    """Where weights come from and what may be done with them; goes along into every export."""

    source: str = ""  # the file, folder or id that they were read from; empty: a run of ours
    layout: str = ""  # whose names they had there
    license: str = ""  # an identifier as Hugging Face's cards have it: cc-by-nc-4.0; empty: not stated
    notes: tuple[str, ...] = ()  # what to know, a sentence each


def rename_license(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return the provenance with the key that older files call `licence` under its name of today."""
    return {"license" if name == "licence" else name: value for name, value in provenance.items()}
