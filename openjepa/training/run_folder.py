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
from openjepa.training.migrations import migrate_provenance

ENCODER_FILE, PROVENANCE_FILE = "encoder.safetensors", "about.json"

CONTEXT_FILE, PREDICTOR_FILE = "context_encoder.safetensors", "predictor.safetensors"  # optional in an export

CONTEXT_PREFIX, TARGET_PREFIX, PREDICTOR_PREFIX = "context_encoder.", "target_encoder.", "predictor."
MASK_TOKEN = f"{PREDICTOR_PREFIX}mask_token"

DEFAULT_ENCODER = "target"  # name of the encoder in exports that do not say it

StateDict = dict[str, torch.Tensor]


def load_method(folder: Path, settings: Pretrain) -> Any:
    """Build the method of these settings with all networks of a run or an export.

    Raises UserError if a network is missing.
    """
    method, state = settings.method.build(settings.data), load_all_networks(folder)
    names = method.state_dict().keys()
    missing = sorted({name.split(".")[0] for name in names - state.keys()})
    if missing:
        raise UserError(
            f"{folder} has no {' and no '.join(missing)}: give the run's folder, or convert a file that has them"
        )
    check_same_tensors(tensor_shapes(method.state_dict()), tensor_shapes({name: state[name] for name in names}))
    method.load_state_dict({name: state[name] for name in method.state_dict()})
    return method.eval().requires_grad_(False)


def export_encoder(method: Method, settings: Pretrain, step: int, folder: Path) -> Path:
    """Write every encoder of the method, with timm's parameter names, and the config; the default one is ENCODER_FILE.

    All processes must call it; the main process writes.
    """
    states = {
        name: {key: full_tensor(x.detach()).cpu().contiguous() for key, x in encoder.state_dict().items()}
        for name, encoder in method.encoders().items()
    }
    if is_main():
        default = next(iter(states))
        files = {ENCODER_FILE if name == default else f"{name}_{ENCODER_FILE}": state for name, state in states.items()}
        write_weights(folder, files, settings, step, read_provenance(settings.out), default)
    return folder


def exported_encoders(folder: Path) -> dict[str, str]:
    """Return the file of each encoder of an export by the encoder's name, the default one first."""
    default = read_weights_metadata(folder / ENCODER_FILE).get("encoder", DEFAULT_ENCODER)
    others = sorted(file.name for file in folder.glob(f"*_{ENCODER_FILE}"))
    return {default: ENCODER_FILE, **{name.removesuffix(f"_{ENCODER_FILE}"): name for name in others}}


def write_weights(
    folder: Path,
    files: dict[str, StateDict],
    settings: Pretrain,
    step: int,
    provenance: Provenance,
    encoder: str = DEFAULT_ENCODER,
) -> Path:
    """Write a folder of weights: the encoder of this name, perhaps other networks, config and provenance."""
    plain = to_json(dataclasses.replace(settings, out=Path(), init_from=None))
    for name, state in files.items():
        with atomic_write(folder / name) as temporary:
            save_file(state, temporary, {"step": str(step)} | ({"encoder": encoder} if name == ENCODER_FILE else {}))
    if provenance != Provenance():
        with atomic_write(folder / PROVENANCE_FILE) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(provenance), indent=1), encoding="utf-8")
    with atomic_write(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(plain, indent=1), encoding="utf-8")
    return folder


def read_provenance(folder: Path) -> Provenance:
    """Read where a folder's weights come from; empty for a run of our own.

    Raises UserError if the file is damaged.
    """
    file = folder / PROVENANCE_FILE
    try:
        return from_plain(Provenance, migrate_provenance(read_json(file))) if file.is_file() else Provenance()
    except ValueError as error:
        raise UserError(
            f"{file} is damaged ({error}): restore it, because it holds the license of the weights"
        ) from error


def copy_provenance(folder: Path, out: Path) -> None:
    """Copy to a run's folder the origin and license of the weights that it starts from, which still apply."""
    provenance = read_provenance(folder)
    if provenance != Provenance():
        with atomic_write(out / PROVENANCE_FILE) as temporary:
            notes = (*provenance.notes, "trained further from these weights")
            temporary.write_text(
                json.dumps(dataclasses.asdict(provenance) | {"notes": notes}, indent=1), encoding="utf-8"
            )


def load_newest_method(folder: Path, settings: Pretrain) -> tuple[Any, int]:
    """Load all networks of a run's newest checkpoint, frozen, and its step.

    Raises UserError if there is no checkpoint.
    """
    for path in list_checkpoints(folder / "checkpoints"):
        checkpoint = read_valid_checkpoint(path)
        method = settings.method.build(settings.data)
        method.load_state_dict(checkpoint.model)
        return method.eval().requires_grad_(False), checkpoint.step
    raise UserError(f"{folder} has no checkpoint yet: continue the run with jepa pretrain --out {folder} --resume yes")


def read_weights_metadata(file: Path) -> dict[str, str]:
    """Read the metadata of a file of weights: the step, and the name of the encoder."""
    with safe_open(file, "pt") as weights:
        return weights.metadata() or {}


def load_weights_into(network: Any, file: Path) -> Any:
    """Load a file's weights into a network and freeze it.

    Raises UserError if they are damaged or of another network.
    """
    state = read_tensors(file)
    check_same_tensors(tensor_shapes(network.state_dict()), tensor_shapes(state))
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def read_tensors(file: Path) -> StateDict:
    """Read a file of weights. Raises UserError if it is damaged."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}): export or convert it again") from error


def read_valid_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises UserError if it is damaged."""
    try:
        return read_checkpoint(path)
    except DAMAGE_ERRORS as error:
        raise UserError(
            f"checkpoint {path} is damaged ({error}): resume the run, which falls back to the previous one"
        ) from error


def initialize_from(method: Any, folder: Path) -> list[str]:
    """Load the weights of another run that fit; describe each tensor or network that does not.

    If the other run has only one encoder, as a masked autoencoder does, it also becomes the target encoder, and if it
    has more mask tokens, the first ones are taken.
    Raises UserError if no weight of the encoder fits.
    """
    source, target = load_all_networks(folder), method.state_dict()
    if not has_prefix(source, TARGET_PREFIX) and has_prefix(target, TARGET_PREFIX):
        source |= {
            TARGET_PREFIX + name.removeprefix(CONTEXT_PREFIX): x
            for name, x in source.items()
            if name.startswith(CONTEXT_PREFIX)
        }
    if MASK_TOKEN in source and MASK_TOKEN in target:
        source[MASK_TOKEN] = source[MASK_TOKEN][: len(target[MASK_TOKEN])]
    fitting = {name: x for name, x in source.items() if name in target and target[name].shape == x.shape}
    method.load_state_dict({name: distribute_like(x, target[name]) for name, x in fitting.items()}, strict=False)
    if not has_prefix(fitting, *encoder_prefixes(method)):
        raise UserError(
            f"no weights of the encoder in {folder} fit this one: give --init-from a run with the same encoder"
        )
    missing = sorted((target.keys() | source.keys()) - fitting.keys())
    networks = describe_missing_networks(missing, source.keys(), target.keys())
    tensors = [name for name in missing if name.split(".")[0] not in networks]
    return [*networks.values(), *(describe_mismatch(name, source.get(name), target.get(name)) for name in tensors)]


def encoder_prefixes(method: Any) -> list[str]:
    """Return what the names of the encoders' weights begin with."""
    encoders = {id(encoder) for encoder in method.encoders().values()}
    return [f"{name}." for name, module in method.named_modules() if id(module) in encoders]


def has_prefix(names: Iterable[str], *prefixes: str) -> bool:
    """Return whether any of the names starts with any of the prefixes."""
    return any(name.startswith(prefixes) for name in names)


def describe_missing_networks(missing: list[str], source: Iterable[str], target: Iterable[str]) -> dict[str, str]:
    """Describe each network that only one of the two runs has, by its name."""
    in_source, in_target = ({name.split(".")[0] for name in names} for names in (source, target))
    counts = Counter(name.split(".")[0] for name in missing)
    one_sided = {name: count for name, count in counts.items() if (name in in_source) != (name in in_target)}
    reason = {True: "new in this run, initialized at random", False: "not used here"}
    return {name: f"{name} ({count} tensors): {reason[name in in_target]}" for name, count in one_sided.items()}


def describe_mismatch(name: str, source: torch.Tensor | None, target: torch.Tensor | None) -> str:
    """Describe why a tensor was not loaded."""
    if source is not None and target is not None:
        shapes = ["×".join(map(str, x.shape)) for x in (source, target)]
        return f"{name}: shape {shapes[0]} in the source, {shapes[1]} here"
    return f"{name}: {'not used here' if target is None else 'new in this run, initialized at random'}"


def load_all_networks(folder: Path) -> StateDict:
    """Load all networks of a run or an export, with the parameter names of a method."""
    path = next(iter(list_checkpoints(folder / "checkpoints")), None)
    if path:
        return read_valid_checkpoint(path).model
    if not (folder / ENCODER_FILE).is_file():
        raise UserError(
            f"{folder} has no checkpoint to start from: give --init-from a run's folder, or the output of jepa convert"
        )
    context = CONTEXT_FILE if (folder / CONTEXT_FILE).is_file() else ENCODER_FILE
    state: StateDict = {}
    for prefix, name in ((TARGET_PREFIX, ENCODER_FILE), (CONTEXT_PREFIX, context), (PREDICTOR_PREFIX, PREDICTOR_FILE)):
        if (folder / name).is_file():
            state |= {prefix + key: x for key, x in read_tensors(folder / name).items()}
    return state


@dataclass(frozen=True)
class Provenance:
    """Where weights come from and under which license; copied into every export."""

    source: str = ""  # the file, folder or id that they were read from; empty: a run of our own
    layout: str = ""  # the project whose parameter names the source uses
    license: str = ""  # an identifier as in Hugging Face's model cards, such as cc-by-nc-4.0; empty: not stated
    notes: tuple[str, ...] = ()  # what a user should know, a sentence each
