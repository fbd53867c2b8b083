"""Read and write folders of Hugging Face's `ijepa`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, read_json
from openjepa.interop.imported import (
    IMAGENET_MEAN_STD,
    ImportedWeights,
    ImportOptions,
    Preprocessing,
    config_of_sizes,
    to_our_names,
)
from openjepa.interop.key_maps import HF4, HF5, StateDict, position_table, read_sizes, strip_prefix
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.interop.raw_values import range_entry, raw_normalization, undo_raw_normalization
from openjepa.modalities.image import Image
from openjepa.training.run_folder import Provenance

MODEL_TYPE = "ijepa"

WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"

PREFIX, HEAD_PREFIX = "ijepa.", "classifier."  # of IJepaForImageClassification

EPS = 1e-6


def is_huggingface_folder(folder: Path) -> bool:
    """Return whether a folder's config was written by the transformers library."""
    return "model_type" in read_config(folder)


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json; empty if there is no such file. Raises UserError if it is damaged."""
    file = folder / "config.json"
    try:
        return read_json(file) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}): is the download complete?") from error


def read_huggingface(folder: Path, options: ImportOptions) -> ImportedWeights:
    """Read the encoder of a folder. Raises UserError if it is damaged, incomplete or of another architecture."""
    config, source = read_config(folder), str(folder)
    if config.get("model_type") != MODEL_TYPE:
        raise UserError(
            f"{folder} is a {config.get('model_type')} model, not ijepa: "
            "jepa probe and jepa compare read it without conversion"
        )
    if config.get("hidden_act", "gelu") != "gelu" or config.get("qkv_bias", True) is not True:
        raise UserError(
            f"{folder} does not have I-JEPA's architecture: hidden_act must be gelu and qkv_bias must be true, "
            f"got {config.get('hidden_act')} and {config.get('qkv_bias')}"
        )
    state = strip_prefix(
        {name: x for name, x in read_tensors(folder).items() if not name.startswith(HEAD_PREFIX)}, PREFIX
    )
    state.pop("embeddings.mask_token", None)
    key_map = HF5 if any(name.startswith("layers.") for name in state) else HF4
    sizes, (preprocessing, notes) = read_sizes(state, key_map, source), read_preprocessing(folder, config)
    if config.get("layer_norm_eps", 1e-12) != EPS:
        notes += (f"its LayerNorm epsilon is {config.get('layer_norm_eps', 1e-12):g}, ours is {EPS:g}",)
    heads = options.num_heads or positive_int(config, "num_attention_heads")
    settings = config_of_sizes(sizes, None, heads, preprocessing, source)
    license = options.license or license_of_card(folder)
    networks = {"target": to_our_names(state, key_map, settings, "target", source)}
    return ImportedWeights(settings, networks, Provenance(folder.name, "hf", license, notes))


def positive_int(config: dict[str, Any], name: str) -> int:
    """Return an integer of a config; 0 if it is missing or invalid."""
    value = config.get(name, 0)
    return value if type(value) is int and 0 <= value < 10_000 else 0


def read_tensors(folder: Path) -> StateDict:
    """Read all tensors of a folder, from one safetensors file or several."""
    names = [WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        try:
            names = sorted(set(read_json(folder / INDEX_FILE)["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{folder / INDEX_FILE} cannot be read ({error}): is the download complete?") from error
    if not all(isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
        raise UserError(
            f"{folder / INDEX_FILE} must name *.safetensors files in the same folder: other names are not read"
        )
    tensors: StateDict = {}
    for name in names:
        try:
            tensors |= load_file(folder / name)
        except FileNotFoundError as error:
            raise UserError(f"{folder} has no {name}: only safetensors are read, not pytorch_model.bin") from error
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder / name} is damaged ({error}): download it again") from error
    return tensors


def read_preprocessing(folder: Path, config: dict[str, Any]) -> tuple[Preprocessing, tuple[str, ...]]:
    """Read how its images are cropped and normalized, with notes on what was assumed.

    Differs: the published processors state a mean and deviation of 0.5, but training used ImageNet's, so we do.
    """
    size = config.get("image_size", 224)
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    if type(height) is not int or type(width) is not int:
        raise UserError(f"{folder}/config.json: image_size must be an integer or a pair of integers, got {size!r}")
    file = folder / "preprocessor_config.json"
    try:
        processor = read_json(file) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}): is the download complete?") from error
    mean, std = (channel_values(processor.get(name)) for name in ("image_mean", "image_std"))
    if not (mean and std) or all(value == 0.5 for value in (*mean, *std)):
        reason = "its processor says 0.5" if mean and std else "its files state none"
        note = f"ImageNet's mean and standard deviation are used, because {reason}"
        return Preprocessing((height, width), *IMAGENET_MEAN_STD), (note,)
    value_range = channel_values(processor.get("value_range"))
    if len(value_range) in (2, 2 * len(mean)) and len(mean) == len(std):
        return Preprocessing((height, width), *undo_raw_normalization(value_range, mean, std), value_range), ()
    return Preprocessing((height, width), mean, std), ()


def channel_values(value: Any) -> tuple[float, ...]:
    """Return a list of numbers as floats; empty if it is anything else."""
    is_valid = isinstance(value, list) and value and all(isinstance(number, int | float) for number in value)
    return tuple(map(float, value)) if is_valid else ()


def license_of_card(folder: Path) -> str:
    """Read the license from the first lines of the model card; empty if it states none."""
    card = folder / "README.md"
    front = card.read_text(encoding="utf-8", errors="replace")[:4096].split("\n---")[0] if card.is_file() else ""
    match = re.search(r"^license:\s*([\w.-]+)\s*$", front, re.MULTILINE)
    return match[1] if match else ""


def write_huggingface(
    state: StateDict, encoder: PretrainedEncoder, folder: Path, head: dict[str, Any] | None = None
) -> None:
    """Write a folder for AutoModel and AutoImageProcessor; with a head, for AutoModelForImageClassification."""
    table = position_table(encoder.config.data.grid, encoder.config.method.encoder.dim)
    tensors, config = HF4.to_external(state, table), ijepa_config(encoder)
    if head:
        tensors = {PREFIX + name: x for name, x in tensors.items()}
        tensors |= {f"{HEAD_PREFIX}{name}": head[name].contiguous() for name in ("weight", "bias")}
        names = dict(enumerate(head["classes"]))
        config |= {"architectures": ["IJepaForImageClassification"], "id2label": names}
        config |= {"label2id": {name: number for number, name in names.items()}}
    with atomic_write(folder / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary, {"format": "pt"})
    write_json(config, folder / "config.json")
    write_processor(encoder.data, folder)


def write_processor(data: Image, folder: Path) -> None:
    """Write how images are prepared, for AutoImageProcessor."""
    write_json(processor_config(data), folder / "preprocessor_config.json")


def write_json(content: dict[str, Any], file: Path) -> None:
    """Write a JSON file atomically."""
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def ijepa_config(encoder: PretrainedEncoder) -> dict[str, Any]:
    """Return the fields of transformers' IJepaConfig."""
    sizes, data = encoder.config.method.encoder, encoder.data
    return {
        "architectures": ["IJepaModel"],
        "model_type": MODEL_TYPE,
        "hidden_size": sizes.dim,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.num_heads,
        "intermediate_size": int(sizes.dim * sizes.mlp_ratio),
        "hidden_act": "gelu",
        "layer_norm_eps": EPS,
        "qkv_bias": True,
        "image_size": data.size[0] if data.size[0] == data.size[1] else list(data.size),
        "patch_size": data.patch,
        "num_channels": data.channels,
    }


def processor_config(data: Image) -> dict[str, Any]:
    """Return the processor that reproduces our evaluation view: bilinear, largest centered square, our mean and std.

    A range of values becomes part of scale, mean and std, so that the processor takes arrays of raw values; it cannot
    clip them. `value_range` is for our reader.

    Differs: for rectangular encoders the processors cannot crop to another aspect ratio; the whole image is squashed,
    which is the same for images of that aspect ratio.
    """
    height, width = data.size
    square = height == width and data.eval_crop != "squash"
    shortest = round(height * 8 / 7) if data.eval_crop == "margin" else height
    crop = {
        "size": {"shortest_edge": shortest},
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
    }
    scale, mean, std = raw_normalization(data)
    return {
        "image_processor_type": "CLIPImageProcessor" if square else "ViTImageProcessor",
        "do_convert_rgb": len(data.value_range) < 2,
        "do_resize": True,
        "resample": 2,
        **(crop if square else {"size": {"height": height, "width": width}}),
        "do_rescale": True,
        "rescale_factor": scale,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
        **range_entry(data),
    }
