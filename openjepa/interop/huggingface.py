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
from openjepa.modalities.image import Image
from openjepa.training.run_folder import Provenance

WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"

PREFIX, HEAD_PREFIX = "ijepa.", "classifier."  # of IJepaForImageClassification

EPS = 1e-6


def is_huggingface_folder(folder: Path) -> bool:
    """Whether a folder's config is one of the transformers library."""
    return "model_type" in read_config(folder)


def read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        return read_json(file) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}): is the download whole?") from error


def read_huggingface(folder: Path, asked: ImportOptions) -> ImportedWeights:
    """The encoder of a folder. Mistake in a sentence if it is damaged, incomplete or of another architecture."""
    config, where = read_config(folder), str(folder)
    if config.get("model_type") != "ijepa":
        raise UserError(f"{folder} is a {config.get('model_type')}, no ijepa: jepa probe and compare take it as it is")
    if config.get("hidden_act", "gelu") != "gelu" or config.get("qkv_bias", True) is not True:
        raise UserError(f"{folder} is built otherwise than I-JEPA: hidden_act and qkv_bias must be gelu and true")
    state = strip_prefix(
        {name: x for name, x in read_tensors(folder).items() if not name.startswith(HEAD_PREFIX)}, PREFIX
    )
    state.pop("embeddings.mask_token", None)
    layout = HF5 if any(name.startswith("layers.") for name in state) else HF4
    known, (pictures, notes) = read_sizes(state, layout, where), read_preprocessing(folder, config)
    if config.get("layer_norm_eps", 1e-12) != EPS:
        notes += (f"its norms add {config.get('layer_norm_eps', 1e-12):g}, ours {EPS:g}",)
    settings = config_of_sizes(
        known, None, asked.num_heads or positive_int(config, "num_attention_heads"), pictures, where
    )
    license = asked.license or license_of_card(folder)
    networks = {"target": to_our_names(state, layout, settings, "target", where)}
    return ImportedWeights(settings, networks, Provenance(folder.name, "hf", license, notes))


def positive_int(config: dict[str, Any], name: str) -> int:
    value = config.get(name, 0)
    return value if type(value) is int and 0 <= value < 10_000 else 0


def read_tensors(folder: Path) -> StateDict:
    """All tensors of a folder, in one file or several. Only safetensors are read."""
    names = [WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        try:
            names = sorted(set(read_json(folder / INDEX_FILE)["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{folder / INDEX_FILE} cannot be read ({error}): is the download whole?") from error
    if not all(isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
        raise UserError(f"{folder / INDEX_FILE} names files that are no safetensors: it is not followed")
    found: StateDict = {}
    for name in names:
        try:
            found |= load_file(folder / name)
        except FileNotFoundError as error:
            raise UserError(f"{folder} has no {name}: only safetensors are read, no pytorch_model.bin") from error
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder / name} is damaged ({error}): download it again") from error
    return found


def read_preprocessing(folder: Path, config: dict[str, Any]) -> tuple[Preprocessing, tuple[str, ...]]:
    """How its pictures are cut. The published processors say 0.5 where training had ImageNet's mean and deviation."""
    size = config.get("image_size", 224)
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    if type(height) is not int or type(width) is not int:
        raise UserError(f"{folder}/config.json has no image_size, but {size!r}")
    file = folder / "preprocessor_config.json"
    try:
        told = read_json(file) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}): is the download whole?") from error
    colours = tuple(channel_values(told.get(name)) for name in ("image_mean", "image_std"))
    if not all(colours) or all(value == 0.5 for each in colours for value in each):
        why = "its processor says 0.5" if all(colours) else "nothing beside it says otherwise"
        return Preprocessing((height, width), *IMAGENET_MEAN_STD), (
            f"ImageNet's mean and deviation are taken, since {why}",
        )
    return Preprocessing((height, width), *colours), ()


def channel_values(value: Any) -> tuple[float, ...]:
    sound = isinstance(value, list) and value and all(isinstance(each, int | float) for each in value)
    return tuple(map(float, value)) if sound else ()


def license_of_card(folder: Path) -> str:
    """What the model card's first lines say."""
    card = folder / "README.md"
    head = card.read_text(errors="replace")[:4096].split("\n---")[0] if card.is_file() else ""
    found = re.search(r"^license:\s*([\w.-]+)\s*$", head, re.MULTILINE)
    return found[1] if found else ""


def write_huggingface(
    state: StateDict, trained: PretrainedEncoder, folder: Path, head: dict[str, Any] | None = None
) -> None:
    """A folder for AutoModel and AutoImageProcessor; with a head, for AutoModelForImageClassification, too."""
    table = position_table(*trained.config.data.grid, trained.config.method.dim)
    theirs, config = HF4.outward(state, table), ijepa_config(trained)
    if head:
        theirs = {PREFIX + name: x for name, x in theirs.items()}
        theirs |= {f"{HEAD_PREFIX}weight": head["weight"].contiguous(), f"{HEAD_PREFIX}bias": head["bias"].contiguous()}
        names = dict(enumerate(head["classes"]))
        config |= {"architectures": ["IJepaForImageClassification"], "id2label": names}
        config |= {"label2id": {name: number for number, name in names.items()}}
    with atomic_write(folder / WEIGHTS_FILE) as temporary:
        save_file(theirs, temporary, {"format": "pt"})
    write_json(config, folder / "config.json")
    write_processor(trained.data, folder)


def write_processor(data: Image, folder: Path) -> None:
    write_json(processor_config(data), folder / "preprocessor_config.json")


def write_json(content: dict[str, Any], file: Path) -> None:
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def ijepa_config(trained: PretrainedEncoder) -> dict[str, Any]:
    """An IJepaConfig."""
    method, data = trained.config.method, trained.data
    return {
        "architectures": ["IJepaModel"],
        "model_type": "ijepa",
        "hidden_size": method.dim,
        "num_hidden_layers": method.depth,
        "num_attention_heads": method.num_heads,
        "intermediate_size": int(method.dim * method.mlp_ratio),
        "hidden_act": "gelu",
        "layer_norm_eps": EPS,
        "qkv_bias": True,
        "image_size": data.size[0] if data.size[0] == data.size[1] else list(data.size),
        "patch_size": data.patch,
        "num_channels": data.channels,
    }


def processor_config(data: Image) -> dict[str, Any]:
    """What makes our evaluation view: bilinear, the largest centred square, our mean and deviation.

    For rectangular encoders their processors know no box of another aspect: the whole picture is squashed, which for
    pictures of that aspect is the same.
    """
    height, width = data.size
    square = height == width and data.eval_crop != "squash"
    shortest = round(height * 8 / 7) if data.eval_crop == "margin" else height
    crop = {
        "size": {"shortest_edge": shortest},
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
    }
    return {
        "image_processor_type": "CLIPImageProcessor" if square else "ViTImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": 2,
        **(crop if square else {"size": {"height": height, "width": width}}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(data.mean),
        "image_std": list(data.std),
    }
