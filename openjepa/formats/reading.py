"""Weights from anywhere: a run, a folder of ours, the authors' checkpoints, Hugging Face, timm."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from openjepa import weights
from openjepa.core.errors import UserError
from openjepa.formats.found import Asked, Found
from openjepa.formats.hugging_face import is_one, read
from openjepa.formats.official import LICENCE
from openjepa.formats.programs import ONNX, PROGRAM
from openjepa.trained import Trained
from openjepa.training.device import choose_device

HUB, OFFICIAL = "hf:", "model.pth.tar"  # the latter as jepa export writes it

PUBLISHED = ("facebook/ijepa", "jmtzt/ijepa", "timm/")  # of which the licence is known

KINDS = "a run, an export, a *.pth.tar of the authors, a folder of Hugging Face or timm, or hf:ID"


def load(source: str | Path, which: str = "target", device: str = "cpu") -> Trained:
    """An encoder from anywhere, ready to use: a run, an export, one of the authors' checkpoints, a folder of Hugging Face
    or timm, or hf:ID of the hub.

    `which` is "target", the averaged encoder, which the paper evaluates, or "context"; Hugging Face and timm ship one
    encoder. Mistake in a sentence if there is none, or if it is damaged.
    """
    where, found = choose_device(device).device, foreign(str(source), Asked())
    ours = Path(source).parent if Path(source).is_file() else Path(source)  # export/encoder.safetensors, too
    trained = found.trained(which) if found else weights.load(ours, which)
    return trained.to(where)


def foreign(source: str, asked: Asked) -> Found | None:
    """What a file or folder of another project holds; None for a folder of ours. Mistake if there is nothing like it."""
    if source.startswith(HUB):
        found = in_folder(downloaded(source.removeprefix(HUB)), asked)
        if found is None:
            raise UserError(f"{source} holds no weights of I-JEPA: want config.json and model.safetensors")
        licence = found.about.licence or (LICENCE if source.removeprefix(HUB).startswith(PUBLISHED) else "")
        return found._replace(about=dataclasses.replace(found.about, source=source, licence=licence))
    path = Path(source)
    if path.is_dir():
        return in_folder(path, asked)
    if not path.is_file():
        raise UserError(f"{source} is not there: give {KINDS}")
    if path.suffix != ".safetensors":
        return read(path, asked)
    return foreign(str(path.parent), asked) if (path.parent / "config.json").is_file() else read(path, asked)


def in_folder(folder: Path, asked: Asked) -> Found | None:
    """What a folder of another project holds; None if it is none of theirs."""
    if (folder / OFFICIAL).is_file():
        return read(folder / OFFICIAL, asked)
    for program in (ONNX, PROGRAM):
        if (folder / program).is_file():
            raise UserError(
                f"{folder} holds a program, {program}, which cannot be read back: give what it was exported from"
            )
    if is_one(folder):
        return read(folder, asked)
    return read(folder, asked) if is_one(folder) else None


def downloaded(name: str) -> Path:
    """A repository of the hub, its configs and safetensors alone."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise UserError("models of the hub need an extra: pip install 'openjepa[hf]'") from error
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "README.md"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"hf:{name} cannot be had ({str(error).splitlines()[0]}): check the id and the network"
        ) from error
