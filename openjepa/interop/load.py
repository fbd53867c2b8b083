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
from openjepa.interop.vjepa2 import is_vjepa2_folder, read_vjepa2
from openjepa.training.device import choose_device

HUB_PREFIX = "hf:"

OFFICIAL_FILE = "model.pth.tar"  # as jepa export writes it

PUBLISHED_PREFIXES = ("facebook/ijepa", "jmtzt/ijepa", "timm/")  # repositories whose license is known

ACCEPTED_SOURCES = "a run, an export, an official *.pth.tar, a folder of Hugging Face or timm, or hf:ID"


def load(source: str | Path, which: str = "", device: str = "cpu") -> PretrainedEncoder:
    """Load an encoder, ready to use.

    `source` is a run, an export, an official checkpoint, a folder of Hugging Face or timm, or hf:ID on the hub. `which`
    names one of the method's encoders, by default its first: of a JEPA "target", the EMA encoder, which the paper
    evaluates, else "context". Hugging Face and timm publish one encoder.

    Raises:
        UserError: there is no such encoder, or it is damaged.
    """
    imported = load_imported(str(source), ImportOptions())
    folder = Path(source).parent if Path(source).is_file() else Path(source)  # also export/encoder.safetensors
    encoder = imported.build_encoder(which) if imported else load_run(folder, which)
    return encoder.to(choose_device(device).device)


def load_imported(source: str, options: ImportOptions) -> ImportedWeights | None:
    """Load weights of another project; None for a folder of ours. Raises UserError if there are no such weights."""
    if source.startswith(HUB_PREFIX):
        name = source.removeprefix(HUB_PREFIX)
        imported = load_imported_folder(download_from_hub(name), options)
        if imported is None:
            raise UserError(
                f"{source} has no weights of I-JEPA or V-JEPA 2: it needs config.json and model.safetensors"
            )
        license = imported.provenance.license or (LICENSE if name.startswith(PUBLISHED_PREFIXES) else "")
        return imported._replace(provenance=dataclasses.replace(imported.provenance, source=source, license=license))
    path = Path(source)
    if path.is_dir():
        return load_imported_folder(path, options)
    if not path.is_file():
        raise UserError(f"{source} does not exist: give {ACCEPTED_SOURCES}")
    if path.suffix != ".safetensors":
        return read_official(path, options)
    if (path.parent / "config.json").is_file():
        return load_imported(str(path.parent), options)
    return read_timm(path, options)


def load_imported_folder(folder: Path, options: ImportOptions) -> ImportedWeights | None:
    """Load a folder of another project; None if it is not in a known layout."""
    if (folder / OFFICIAL_FILE).is_file():
        return read_official(folder / OFFICIAL_FILE, options)
    for program in (ONNX_FILE, PROGRAM_FILE):
        if (folder / program).is_file():
            raise UserError(
                f"{folder} holds a program, {program}, which cannot be loaded as weights: give its source instead"
            )
    if is_huggingface_folder(folder):
        return read_vjepa2(folder, options) if is_vjepa2_folder(folder) else read_huggingface(folder, options)
    return read_timm(folder, options) if is_timm_folder(folder) else None


def download_from_hub(name: str) -> Path:
    """Download a repository of the hub, only its configs, safetensors and model card."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise UserError("models on the hub need an extra: pip install 'openjepa[hf]'") from error
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "README.md"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"cannot download hf:{name} ({str(error).splitlines()[0]}): check the ID and the network"
        ) from error
