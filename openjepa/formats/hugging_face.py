"""Folders of Hugging Face's `ijepa`: read, whichever version of transformers wrote them, and written for both."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, read_json
from openjepa.formats.found import IMAGENET, Asked, Found, Pictures, ours, settings_of
from openjepa.formats.layouts import HF4, HF5, State, position_table, sizes, strip
from openjepa.modalities.image import Image
from openjepa.trained import Trained
from openjepa.training.run_folder import Provenance

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

PREFIX, HEAD = "ijepa.", "classifier."  # of IJepaForImageClassification

EPS = 1e-6


def is_one(folder: Path) -> bool:
    """Whether a folder's config is one of the transformers library."""
    return "model_type" in config_of(folder)


def config_of(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        return read_json(file) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}): is the download whole?") from error


def read(folder: Path, asked: Asked) -> Found:
    """The encoder of a folder. Mistake in a sentence if it is damaged, incomplete or of another architecture."""
    config, where = config_of(folder), str(folder)
    if config.get("model_type") != "ijepa":
        raise UserError(f"{folder} is a {config.get('model_type')}, no ijepa: jepa probe and compare take it as it is")
    if config.get("hidden_act", "gelu") != "gelu" or config.get("qkv_bias", True) is not True:
        raise UserError(f"{folder} is built otherwise than I-JEPA: hidden_act and qkv_bias must be gelu and true")
    state = strip({name: x for name, x in tensors(folder).items() if not name.startswith(HEAD)}, PREFIX)
    state.pop("embeddings.mask_token", None)
    layout = HF5 if any(name.startswith("layers.") for name in state) else HF4
    known, (pictures, notes) = sizes(state, layout, where), seen(folder, config)
    if config.get("layer_norm_eps", 1e-12) != EPS:
        notes += (f"its norms add {config.get('layer_norm_eps', 1e-12):g}, ours {EPS:g}",)
    settings = settings_of(known, None, asked.num_heads or whole(config, "num_attention_heads"), pictures, where)
    licence = asked.licence or licence_of(folder)
    networks = {"target": ours(state, layout, settings, "target", where)}
    return Found(settings, networks, Provenance(folder.name, "hf", licence, notes))


def whole(config: dict[str, Any], name: str) -> int:
    value = config.get(name, 0)
    return value if type(value) is int and 0 <= value < 10_000 else 0


def tensors(folder: Path) -> State:
    """All tensors of a folder, in one file or several. Only safetensors are read."""
    names = [WEIGHTS]
    if (folder / INDEX).is_file():
        try:
            names = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{folder / INDEX} cannot be read ({error}): is the download whole?") from error
    if not all(isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
        raise UserError(f"{folder / INDEX} names files that are no safetensors: it is not followed")
    found: State = {}
    for name in names:
        try:
            found |= load_file(folder / name)
        except FileNotFoundError as error:
            raise UserError(f"{folder} has no {name}: only safetensors are read, no pytorch_model.bin") from error
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder / name} is damaged ({error}): download it again") from error
    return found


def seen(folder: Path, config: dict[str, Any]) -> tuple[Pictures, tuple[str, ...]]:
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
    colours = tuple(colour(told.get(name)) for name in ("image_mean", "image_std"))
    if not all(colours) or all(value == 0.5 for each in colours for value in each):
        why = "its processor says 0.5" if all(colours) else "nothing beside it says otherwise"
        return Pictures((height, width), *IMAGENET), (f"ImageNet's mean and deviation are taken, since {why}",)
    return Pictures((height, width), *colours), ()


def colour(value: Any) -> tuple[float, ...]:
    sound = isinstance(value, list) and value and all(isinstance(each, int | float) for each in value)
    return tuple(map(float, value)) if sound else ()


def licence_of(folder: Path) -> str:
    """What the model card's first lines say."""
    card = folder / "README.md"
    head = card.read_text(errors="replace")[:4096].split("\n---")[0] if card.is_file() else ""
    found = re.search(r"^license:\s*([\w.-]+)\s*$", head, re.MULTILINE)
    return found[1] if found else ""


def write(state: State, trained: Trained, folder: Path, head: dict[str, Any] | None = None) -> None:
    """A folder for AutoModel and AutoImageProcessor; with a head, for AutoModelForImageClassification, too."""
    table = position_table(*trained.config.data.grid, trained.config.method.dim)
    theirs, config = HF4.outward(state, table), described(trained)
    if head:
        theirs = {PREFIX + name: x for name, x in theirs.items()}
        theirs |= {f"{HEAD}weight": head["weight"].contiguous(), f"{HEAD}bias": head["bias"].contiguous()}
        names = dict(enumerate(head["classes"]))
        config |= {"architectures": ["IJepaForImageClassification"], "id2label": names}
        config |= {"label2id": {name: number for number, name in names.items()}}
    with atomic_write(folder / WEIGHTS) as temporary:
        save_file(theirs, temporary, {"format": "pt"})
    write_json(config, folder / "config.json")
    write_processor(trained.data, folder)


def write_processor(data: Image, folder: Path) -> None:
    write_json(processor(data), folder / "preprocessor_config.json")


def write_json(content: dict[str, Any], file: Path) -> None:
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def described(trained: Trained) -> dict[str, Any]:
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


def processor(data: Image) -> dict[str, Any]:
    """What makes our evaluation view: bilinear, the largest centred square, our mean and deviation.

    For rectangular encoders their processors know no box of another aspect: the whole picture is squashed, which for
    pictures of that aspect is the same.
    """
    height, width = data.size
    square = height == width and data.fit != "squash"
    shortest = round(height * 8 / 7) if data.fit == "margin" else height
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
