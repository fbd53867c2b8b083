"""Write an encoder in the formats of other tools."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from openjepa.core.errors import UserError
from openjepa.interop.huggingface import read_config, write_huggingface, write_processor
from openjepa.interop.official import write_official
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.interop.programs import write_onnx, write_torch_program
from openjepa.interop.timm import write_timm
from openjepa.modalities.image import Image
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

ExportFormat = Literal["hf", "timm", "onnx", "torch", "safetensors", "official"]


def networks_by_file(folder: Path) -> dict[str, StateDict]:
    """All networks of a folder of ours, by the file that keeps them."""
    files = {
        TARGET_PREFIX: ENCODER_FILE,
        CONTEXT_PREFIX: CONTEXT_FILE,
        PREDICTOR_PREFIX: PREDICTOR_FILE,
    }
    state = load_all_networks(folder)
    found = {
        file: {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
        for prefix, file in files.items()
    }
    return found if found[ENCODER_FILE] else found | {ENCODER_FILE: found[CONTEXT_FILE]}  # of one encoder


class ExportJob(NamedTuple):
    """What is to be written, and where."""

    encoder: PretrainedEncoder
    run: Path
    folder: Path
    head: dict[str, Any] | None  # weight, bias and classes of a linear classifier
    license: str


def export_huggingface(order: ExportJob) -> str:
    check_representable(order.encoder, "Hugging Face's ijepa")
    write_huggingface(order.encoder.encoder.state_dict(), order.encoder, order.folder, order.head)
    return f"for AutoModel{'ForImageClassification' if order.head else ''} and AutoImageProcessor"


def export_timm(order: ExportJob) -> str:
    check_representable(order.encoder, "timm's vision transformer")
    write_timm(order.encoder.encoder.state_dict(), order.encoder, order.folder, order.license)
    return 'for timm.create_model("local-dir:…")'


def export_onnx(order: ExportJob) -> str:
    worst = write_onnx(order.encoder, order.folder)
    write_image_processor(order)
    return f"onnxruntime's features differ from ours by {worst:.1e} at most"


def export_torch(order: ExportJob) -> str:
    worst = write_torch_program(order.encoder, order.folder)
    write_image_processor(order)
    return f"the program's features differ from ours by {worst:.1e} at most"


def export_safetensors(order: ExportJob) -> str:
    trained = order.encoder
    about = dataclasses.replace(trained.provenance, license=order.license)
    write_weights(order.folder, {ENCODER_FILE: trained.encoder.state_dict()}, trained.config, trained.step, about)
    return "for openjepa.load, and whatever reads safetensors"


def export_official(order: ExportJob) -> str:
    check_representable(order.encoder, "the released code's encoder")
    states = {"target": order.encoder.encoder.state_dict()}
    if order.run.is_dir() and not read_config(order.run).keys() & {"model_type", "architecture"}:
        kept = networks_by_file(order.run)
        states |= {"context": kept[CONTEXT_FILE], "predictor": feature_rows(kept[PREDICTOR_FILE], order)}
    write_official(
        {name: state for name, state in states.items() if state}, order.encoder, order.folder / "model.pth.tar"
    )
    return ", ".join(name for name, state in states.items() if state)


def feature_rows(predictor: StateDict, order: ExportJob) -> StateDict:
    """A predictor as the released code has it, of as many numbers as a feature has: pixels asked for besides are left out.

    Nothing where it predicts several layers side by side.
    """
    width = order.encoder.config.method.dim
    if not predictor or order.encoder.target_dim != width:
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


def write_image_processor(order: ExportJob) -> None:
    """How pictures are made ready for a program, as Hugging Face's processors have it."""
    write_processor(order.encoder.data, order.folder)


def check_representable(trained: PretrainedEncoder, theirs: str) -> None:
    """Mistake where another project's encoder has no place for what ours has."""
    method, data = trained.config.method, trained.config.data
    other = {
        "rotary positions": method.positions != "sincos",
        "registers": method.registers > 0,
        "a convolutional stem": isinstance(data, Image) and data.stem != "linear",
    }
    if has := [name for name, there in other.items() if there]:
        raise UserError(f"{theirs} has no {' and no '.join(has)}: try --format onnx, torch or safetensors")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which bears its name once it is whole. Mistake if there is one already."""
    if folder.exists():
        raise UserError(f"{folder} is there already: give another --out, or remove it")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
