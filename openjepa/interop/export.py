"""Write an encoder in the formats of other tools."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from openjepa.core.capabilities import modality_name
from openjepa.core.errors import UserError
from openjepa.interop.huggingface import read_config, write_huggingface, write_processor
from openjepa.interop.official import write_official
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.interop.programs import write_onnx, write_torch_program
from openjepa.interop.timm import write_timm
from openjepa.interop.vjepa2 import write_vjepa2
from openjepa.modalities.image import Image
from openjepa.modalities.video import Video
from openjepa.nn.vit import ViT
from openjepa.training.locations import map_roots
from openjepa.training.run_folder import (
    CONTEXT_FILE,
    CONTEXT_PREFIX,
    ENCODER_FILE,
    PREDICTOR_FILE,
    PREDICTOR_PREFIX,
    TARGET_PREFIX,
    StateDict,
    load_all_networks,
    write_weights,
)


def networks_by_file(folder: Path) -> dict[str, StateDict]:
    """Return all networks of a run or an export by the file that stores them."""
    files = {
        TARGET_PREFIX: ENCODER_FILE,
        CONTEXT_PREFIX: CONTEXT_FILE,
        PREDICTOR_PREFIX: PREDICTOR_FILE,
    }
    state = load_all_networks(folder)
    networks = {
        file: {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
        for prefix, file in files.items()
    }
    if not networks[ENCODER_FILE]:  # a method with a single encoder
        networks[ENCODER_FILE] = networks[CONTEXT_FILE]
    return networks


class ExportJob(NamedTuple):
    """What to write, and where."""

    encoder: PretrainedEncoder
    run: Path
    folder: Path
    head: dict[str, Any] | None  # weight, bias and class names of a linear classifier
    license: str


def export_huggingface(job: ExportJob) -> str:
    """Write a folder of Hugging Face's ijepa or vjepa2; return a note for the user, as every exporter does."""
    if isinstance(job.encoder.modality, Video):
        if job.head:
            raise UserError("Hugging Face's vjepa2 has no linear classifier on mean features: leave out --head")
        has_predictor = write_vjepa2(job.encoder, job.folder)
        return f"for AutoModel and AutoVideoProcessor{'' if has_predictor else ', without a predictor'}"
    check_representable(job.encoder, "Hugging Face's ijepa")
    write_huggingface(job.encoder.encoder.state_dict(), job.encoder, job.folder, job.head)
    return f"for AutoModel{'ForImageClassification' if job.head else ''} and AutoImageProcessor"


def export_timm(job: ExportJob) -> str:
    """Write a folder of timm's vision transformer."""
    check_representable(job.encoder, "timm's vision transformer")
    write_timm(job.encoder.encoder.state_dict(), job.encoder, job.folder, job.license)
    return 'for timm.create_model("local-dir:…")'


def export_onnx(job: ExportJob) -> str:
    """Write an ONNX program and compare it with the encoder."""
    worst = write_onnx(job.encoder, job.folder)
    write_image_processor(job)
    return f"onnxruntime's features differ from ours by at most {worst:.1e}"


def export_torch(job: ExportJob) -> str:
    """Write a torch.export program and compare it with the encoder."""
    worst = write_torch_program(job.encoder, job.folder)
    write_image_processor(job)
    return f"the program's features differ from ours by at most {worst:.1e}"


def export_safetensors(job: ExportJob) -> str:
    """Write the encoder in our own layout; of the paths of data only the last part, as others may read it."""
    encoder, config = job.encoder, map_roots(job.encoder.config, lambda root: Path(root).name)
    provenance = dataclasses.replace(encoder.provenance, license=job.license)
    write_weights(job.folder, {ENCODER_FILE: encoder.encoder.state_dict()}, config, encoder.step, provenance)
    return "for openjepa.load, and for any reader of safetensors"


def export_official(job: ExportJob) -> str:
    """Write a *.pth.tar with all networks that the run has, in the released code's layout."""
    check_representable(job.encoder, "the released code's encoder")
    states = {"target": job.encoder.encoder.state_dict()}
    if job.run.is_dir() and not read_config(job.run).keys() & {"model_type", "architecture"}:
        networks = networks_by_file(job.run)
        states |= {"context": networks[CONTEXT_FILE], "predictor": feature_rows(networks[PREDICTOR_FILE], job)}
    states = {name: state for name, state in states.items() if state}
    write_official(states, job.encoder, job.folder / "model.pth.tar")
    return ", ".join(states)


def feature_rows(predictor: StateDict, job: ExportJob) -> StateDict:
    """Return the predictor with only the output rows that predict features, without those for pixels.

    Empty if it predicts several layers side by side, which the released code cannot represent.
    """
    width = job.encoder.config.method.encoder.dim
    if not predictor or job.encoder.target_dim != width:
        return {}
    return {name: x[:width] if name.startswith("proj.") else x for name, x in predictor.items()}


EXPORTERS: dict[str, Callable[[ExportJob], str]] = {
    "hf": export_huggingface,
    "timm": export_timm,
    "onnx": export_onnx,
    "torch": export_torch,
    "safetensors": export_safetensors,
    "official": export_official,
}


def write_image_processor(job: ExportJob) -> None:
    """Write how to prepare images for a program, as a Hugging Face processor config; nothing for other inputs."""
    if isinstance(job.encoder.modality, Image):
        write_processor(job.encoder.modality, job.folder)


def check_representable(encoder: PretrainedEncoder, target: str) -> None:
    """Raise UserError if the target format cannot represent a part of our encoder."""
    method, data = encoder.config.method, encoder.config.data
    if not isinstance(data, Image):
        raise UserError(
            f"{target} takes images, this encoder takes {modality_name(data)}: try --format safetensors or torch"
        )
    parts = {
        f"{type(encoder.network).__name__} networks": type(encoder.network) is not ViT,
        "rotary positions": getattr(method.encoder, "positions", "sincos") != "sincos",
        "a convolutional stem": data.stem != "linear",
    }
    if unsupported := [name for name, is_used in parts.items() if is_used]:
        raise UserError(f"{target} has no {' and no '.join(unsupported)}: try --format onnx, torch or safetensors")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that gets its name when it is complete. Raises UserError if the name is in use."""
    if folder.exists():
        raise UserError(f"{folder} already exists: give another --out, or remove it")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
