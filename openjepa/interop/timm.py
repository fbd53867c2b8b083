"""Read and write weights under timm's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.interop.huggingface import channel_values, license_of_card, positive_int, read_config, write_json
from openjepa.interop.imported import (
    IMAGENET_MEAN_STD,
    ImportedWeights,
    ImportOptions,
    Preprocessing,
    config_of_sizes,
    to_our_names,
)
from openjepa.interop.key_maps import TIMM, StateDict, position_table, read_sizes
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.interop.raw_values import range_entry
from openjepa.training.run_folder import Provenance

WEIGHTS_FILE = "model.safetensors"


def is_timm_folder(folder: Path) -> bool:
    """Return whether a folder's config was written by timm."""
    return "architecture" in read_config(folder)


def read_timm(path: Path, options: ImportOptions) -> ImportedWeights:
    """Read the encoder of a folder or of one safetensors file. Raises UserError if it is not an I-JEPA encoder."""
    folder, file = (path, path / WEIGHTS_FILE) if path.is_dir() else (path.parent, path)
    config = read_config(folder) if path.is_dir() else {}
    try:
        state = load_file(file)
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no {WEIGHTS_FILE}: only safetensors are read") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}): download it again") from error
    state = {name: x for name, x in state.items() if not name.startswith("head.")}
    sizes = read_sizes(state, TIMM, str(path))
    model_args, pretrained = config_section(config, "model_args"), config_section(config, "pretrained_cfg")
    heads = options.num_heads or positive_int(model_args, "num_heads")
    preprocessing = timm_preprocessing(model_args, pretrained, channel_values(config.get("value_range")))
    settings = config_of_sizes(sizes, None, heads, preprocessing, str(path))
    stated_license = pretrained["license"] if isinstance(pretrained.get("license"), str) else ""
    license = options.license or license_of_card(folder) or stated_license
    assumption = "ImageNet's mean and standard deviation are used, because its files state none"
    notes = () if pretrained.get("mean") else (assumption,)
    networks = {"target": to_our_names(state, TIMM, settings, "target", str(path))}
    return ImportedWeights(settings, networks, Provenance(path.name, "timm", license, notes))


def timm_preprocessing(
    model_args: dict[str, Any], pretrained: dict[str, Any], value_range: tuple[float, ...] = ()
) -> Preprocessing:
    """Return how images are prepared, by timm's config; ImageNet's mean and standard deviation by default."""
    size = model_args.get("img_size")
    pair = (size[0], size[1]) if isinstance(size, list) and [type(side) for side in size] == [int, int] else None
    mean = channel_values(pretrained.get("mean")) or IMAGENET_MEAN_STD[0]
    std = channel_values(pretrained.get("std")) or IMAGENET_MEAN_STD[1]
    return Preprocessing(pair, mean, std, value_range)


def config_section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a section of a config; empty if it is missing or not a dict."""
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def write_timm(state: StateDict, encoder: PretrainedEncoder, folder: Path, license: str) -> None:
    """Write a folder with the weights and timm's config."""
    data, method = encoder.data, encoder.config.method
    tensors = TIMM.to_external(state, position_table(data.grid, method.encoder.dim))
    with atomic_write(folder / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary, {"format": "pt"})
    config = {
        "architecture": "vit_base_patch16_224",
        "num_classes": 0,
        "num_features": method.encoder.dim,
        "global_pool": "avg",
        "model_args": {
            "img_size": list(data.size),
            "patch_size": data.patch,
            "in_chans": data.channels,
            "embed_dim": method.encoder.dim,
            "depth": method.encoder.depth,
            "num_heads": method.encoder.num_heads,
            "mlp_ratio": method.encoder.mlp_ratio,
            "class_token": False,
            "global_pool": "avg",
            "fc_norm": False,
        },
        "pretrained_cfg": {
            "input_size": [data.channels, *data.size],
            "interpolation": "bilinear",
            "crop_pct": 7 / 8 if data.eval_crop == "margin" else 1.0,
            "crop_mode": "squash" if data.eval_crop == "squash" else "center",
            "mean": list(data.mean),
            "std": list(data.std),
            "num_classes": 0,
            "license": license,
        },
        **range_entry(data),
    }
    write_json(config, folder / "config.json")
