"""Finished encoders: written at the end of a run, read back for evaluation."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from openjepa import config
from openjepa.checkpoint import DAMAGE, Loaded, alike, read, shapes, steps
from openjepa.config import Pretrain, to_json
from openjepa.core.config import from_plain
from openjepa.core.distributed import distribute_like, full_tensor, is_main
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, read_json
from openjepa.core.protocols import Method
from openjepa.nn.predictor import Predictor
from openjepa.nn.vit import ViT
from openjepa.trained import About, Trained

FILE, ABOUT = "encoder.safetensors", "about.json"

CONTEXT_FILE, PREDICTOR_FILE = "context_encoder.safetensors", "predictor.safetensors"  # where they were asked for, too

CONTEXT, TARGET, PREDICTOR = "context_encoder.", "target_encoder.", "predictor."

State = dict[str, torch.Tensor]


def method_of(folder: Path, settings: Pretrain) -> Any:
    """All networks of a run, or of a folder that has them all, as a method of these settings. Mistake if some are missing."""
    method, state = settings.method.build(settings.data), everything(folder)
    missing = sorted({name.split(".")[0] for name in method.state_dict().keys() - state.keys()})
    if missing:
        raise UserError(
            f"{folder} has no {' and no '.join(missing)}: give the run's folder, or convert a file that has them"
        )
    alike(shapes(method.state_dict()), shapes({name: state[name] for name in method.state_dict()}))
    method.load_state_dict({name: state[name] for name in method.state_dict()})
    return method.eval().requires_grad_(False)


def export(method: Method, settings: Pretrain, step: int, folder: Path) -> Path:
    """Writes the target encoder, which the paper evaluates, under timm's names, with the config beside it.

    All processes call it, the main one writes.
    """
    state = {
        name: full_tensor(x.detach()).cpu().contiguous() for name, x in method.encoder("target").state_dict().items()
    }
    if is_main():
        write(folder, {FILE: state}, settings, step, about(settings.out))
    return folder


def write(folder: Path, files: dict[str, State], settings: Pretrain, step: int, known: About) -> Path:
    """A folder of weights: the encoder, other networks if they are there, the config, and where it all comes from."""
    plain = to_json(dataclasses.replace(settings, out=Path(), init_from=None))
    for name, state in files.items():
        with atomic_write(folder / name) as temporary:
            save_file(state, temporary, {"step": str(step)})
    if known != About():
        with atomic_write(folder / ABOUT) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(known), indent=1))
    with atomic_write(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(plain, indent=1))
    return folder


def about(folder: Path) -> About:
    """Where a folder's weights come from; of a run of our own there is nothing to say. Mistake if that is damaged."""
    file = folder / ABOUT
    try:
        return from_plain(About, read_json(file)) if file.is_file() else About()
    except ValueError as error:
        raise UserError(
            f"{file} is damaged ({error}): put it back; it says what may be done with the weights"
        ) from error


def inherit(folder: Path, out: Path) -> None:
    """A run that starts from weights of another project stays under their licence: says so in the run's folder."""
    known = about(folder)
    if known != About():
        with atomic_write(out / ABOUT) as temporary:
            notes = (*known.notes, "trained further from these weights")
            temporary.write_text(json.dumps(dataclasses.asdict(known) | {"notes": notes}, indent=1))


def load(folder: Path, which: str = "target") -> Trained:
    """The encoder of a run (its newest good checkpoint) or of an export. Mistake in a sentence if there is none."""
    settings = config.load(folder)
    if (folder / FILE).is_file():
        return exported(folder, settings, which)
    method, step = whole_method(folder, settings)
    predictor = getattr(method, "predictor", None)  # of joint embedding it is an expander
    predictor = predictor if isinstance(predictor, Predictor) else None
    return Trained(method.encoder(which), settings, step, predictor, about(folder))


def whole_method(folder: Path, settings: Pretrain) -> tuple[Any, int]:
    """All networks of a run as its newest checkpoint has them, not to be trained, and its step. Mistake if there is none."""
    for path in steps(folder / "checkpoints"):
        loaded = checked(path)
        method = settings.method.build(settings.data)
        method.load_state_dict(loaded.model)
        return method.eval().requires_grad_(False), loaded.step
    raise UserError(f"{folder} has no checkpoint yet: let the run go on with jepa pretrain --out {folder} --resume yes")


def exported(folder: Path, settings: Pretrain, which: str) -> Trained:
    """What a folder of weights holds."""
    file = folder / (FILE if which == "target" else CONTEXT_FILE)
    if not file.is_file():
        raise UserError(f"{folder} is an export, which holds the target encoder alone: give the run's folder")
    predictor = None
    if (folder / PREDICTOR_FILE).is_file():
        predictor = loaded_into(settings.method.predictor(settings.data), folder / PREDICTOR_FILE)  # type: ignore[union-attr]
    encoder = loaded_into(settings.method.encoder(settings.data), file)
    step = int(metadata(file).get("step", settings.steps))
    return Trained(encoder, settings, step, predictor, about(folder))


def metadata(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return opened.metadata() or {}


def loaded_into(network: Any, file: Path) -> Any:
    """A network with a file's weights, not to be trained. Mistake in a sentence if they are another's, or damaged."""
    state = read_tensors(file)
    alike(shapes(network.state_dict()), shapes(state))
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def read_tensors(file: Path) -> State:
    """What a file of weights holds. Mistake if it is damaged."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}): export or convert it again") from error


def checked(path: Path) -> Loaded:
    """A checkpoint. Mistake if it is damaged."""
    try:
        return read(path)
    except DAMAGE as error:
        raise UserError(
            f"checkpoint {path} is damaged ({error}): resume the run, which takes the one before"
        ) from error


def untrained(settings: Pretrain) -> ViT:
    """The encoder as the run's seed makes it; a run with --init-from began elsewhere."""
    return settings.method.build(settings.data, settings.seed).encoder("target").eval()


def initialise_from(method: nn.Module, folder: Path) -> list[str]:
    """Loads another run's weights, all that fit in name and shape; returns what did not, a sentence for each tensor or network.

    Where theirs had one encoder, as a masked autoencoder has, it becomes the target encoder, too.
    """
    theirs, mine = everything(folder), method.state_dict()
    if not any(name.startswith(TARGET) for name in theirs) and any(name.startswith(TARGET) for name in mine):
        theirs |= {TARGET + name.removeprefix(CONTEXT): x for name, x in theirs.items() if name.startswith(CONTEXT)}
    fitting = {name: value for name, value in theirs.items() if name in mine and mine[name].shape == value.shape}
    method.load_state_dict({name: distribute_like(value, mine[name]) for name, value in fitting.items()}, strict=False)
    if not any(name.startswith((CONTEXT, TARGET)) for name in fitting):
        raise UserError(
            f"nothing of the encoder in {folder} fits this one: give a run of the same encoder to --init-from"
        )
    missing = sorted((mine.keys() | theirs.keys()) - fitting.keys())
    absent = absences(missing, theirs.keys(), mine.keys())
    rest = [name for name in missing if name.split(".")[0] not in absent]
    return [*absent.values(), *(unfit(name, theirs.get(name), mine.get(name)) for name in rest)]


def absences(missing: list[str], theirs: Iterable[str], mine: Iterable[str]) -> dict[str, str]:
    """A sentence for each network that only one of the two has."""
    there, here = ({name.split(".")[0] for name in names} for names in (theirs, mine))
    counts = Counter(
        name.split(".")[0] for name in missing if (name.split(".")[0] in there) != (name.split(".")[0] in here)
    )
    where = {True: "only here, and begins as the seed makes it", False: "only there"}
    return {name: f"{name}, {count} tensors, is {where[name in here]}" for name, count in counts.items()}


def everything(folder: Path) -> State:
    """All networks of a run, or of a folder of weights, under the names that a method gives them."""
    path = next(iter(steps(folder / "checkpoints")), None)
    if path:
        return checked(path).model
    if not (folder / FILE).is_file():
        raise UserError(
            f"{folder} has no checkpoint to start from: give a run's folder to --init-from, or what jepa convert made"
        )
    context = CONTEXT_FILE if (folder / CONTEXT_FILE).is_file() else FILE
    found: State = {}
    for prefix, name in ((TARGET, FILE), (CONTEXT, context), (PREDICTOR, PREDICTOR_FILE)):
        if (folder / name).is_file():
            found |= {prefix + each: x for each, x in read_tensors(folder / name).items()}
    return found


def unfit(name: str, theirs: torch.Tensor | None, mine: torch.Tensor | None) -> str:
    """Why a tensor was not taken over."""
    there, here = ("×".join(map(str, x.shape)) if x is not None else "" for x in (theirs, mine))
    if there and here:
        return f"{name} is {there} there and {here} here"
    return f"{name} is only {'there' if there else 'here, and begins as the seed makes it'}"
