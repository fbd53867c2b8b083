"""Load an encoder from anywhere: a run, an export, official checkpoints, Hugging Face, timm."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from openjepa.core.errors import UserError
from openjepa.interop.huggingface import is_huggingface_folder, read_huggingface
from openjepa.interop.imported import ImportedWeights, ImportOptions
from openjepa.interop.official import LICENSE, read_official
from openjepa.interop.pretrained import PretrainedEncoder, load_run
from openjepa.interop.programs import ONNX_FILE, PROGRAM_FILE
from openjepa.interop.timm import is_timm_folder, read_timm
from openjepa.training.device import choose_device

HUB_PREFIX, OFFICIAL_FILE = "hf:", "model.pth.tar"  # the latter as jepa export writes it

PUBLISHED_PREFIXES = ("facebook/ijepa", "jmtzt/ijepa", "timm/")  # of which the license is known

ACCEPTED_SOURCES = "a run, an export, a *.pth.tar of the authors, a folder of Hugging Face or timm, or hf:ID"


def load(source: str | Path, which: str = "target", device: str = "cpu") -> PretrainedEncoder:
    """An encoder from anywhere, ready to use: a run, an export, one of the authors' checkpoints, a folder of Hugging Face
    or timm, or hf:ID of the hub.

    `which` is "target", the averaged encoder, which the paper evaluates, or "context"; Hugging Face and timm ship one
    encoder. Mistake in a sentence if there is none, or if it is damaged.
    """
    where, found = choose_device(device).device, load_imported(str(source), ImportOptions())
    ours = Path(source).parent if Path(source).is_file() else Path(source)  # export/encoder.safetensors, too
    trained = found.trained(which) if found else load_run(ours, which)
    return trained.to(where)


def load_imported(source: str, asked: ImportOptions) -> ImportedWeights | None:
    """What a file or folder of another project holds; None for a folder of ours. Mistake if there is nothing like it."""
    if source.startswith(HUB_PREFIX):
        found = load_imported_folder(download_from_hub(source.removeprefix(HUB_PREFIX)), asked)
        if found is None:
            raise UserError(f"{source} holds no weights of I-JEPA: want config.json and model.safetensors")
        license = found.provenance.license or (
            LICENSE if source.removeprefix(HUB_PREFIX).startswith(PUBLISHED_PREFIXES) else ""
        )
        return found._replace(provenance=dataclasses.replace(found.provenance, source=source, license=license))
    path = Path(source)
    if path.is_dir():
        return load_imported_folder(path, asked)
    if not path.is_file():
        raise UserError(f"{source} is not there: give {ACCEPTED_SOURCES}")
    if path.suffix != ".safetensors":
        return read_official(path, asked)
    return load_imported(str(path.parent), asked) if (path.parent / "config.json").is_file() else read_timm(path, asked)


def load_imported_folder(folder: Path, asked: ImportOptions) -> ImportedWeights | None:
    """What a folder of another project holds; None if it is none of theirs."""
    if (folder / OFFICIAL_FILE).is_file():
        return read_official(folder / OFFICIAL_FILE, asked)
    for program in (ONNX_FILE, PROGRAM_FILE):
        if (folder / program).is_file():
            raise UserError(
                f"{folder} holds a program, {program}, which cannot be read back: give what it was exported from"
            )
    if is_huggingface_folder(folder):
        return read_huggingface(folder, asked)
    return read_timm(folder, asked) if is_timm_folder(folder) else None


def download_from_hub(name: str) -> Path:
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
