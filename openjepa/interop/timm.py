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
from openjepa.training.run_folder import Provenance

WEIGHTS_FILE = "model.safetensors"


def is_timm_folder(folder: Path) -> bool:
    """Whether a folder's config is one of timm's."""
    return "architecture" in read_config(folder)


def read_timm(path: Path, asked: ImportOptions) -> ImportedWeights:
    """The encoder of a folder or of one file of safetensors. Mistake in a sentence if it is none."""
    folder, file = (path, path / WEIGHTS_FILE) if path.is_dir() else (path.parent, path)
    config = read_config(folder) if path.is_dir() else {}
    try:
        state = load_file(file)
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no {WEIGHTS_FILE}: only safetensors are read") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}): download it again") from error
    state = {name: x for name, x in state.items() if not name.startswith("head.")}
    known, made, told = (
        read_sizes(state, TIMM, str(path)),
        config_section(config, "model_args"),
        config_section(config, "pretrained_cfg"),
    )
    size = made.get("img_size")
    pair = (size[0], size[1]) if isinstance(size, list) and [type(each) for each in size] == [int, int] else None
    colours = tuple(
        channel_values(told.get(name)) or IMAGENET_MEAN_STD[place] for place, name in enumerate(("mean", "std"))
    )
    settings = config_of_sizes(
        known, None, asked.num_heads or positive_int(made, "num_heads"), Preprocessing(pair, *colours), str(path)
    )
    license = (
        asked.license or license_of_card(folder) or (told["license"] if isinstance(told.get("license"), str) else "")
    )
    assumed = (
        () if told.get("mean") else ("ImageNet's mean and deviation are taken, since nothing beside it says otherwise",)
    )
    networks = {"target": to_our_names(state, TIMM, settings, "target", str(path))}
    return ImportedWeights(settings, networks, Provenance(path.name, "timm", license, assumed))


def config_section(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def write_timm(state: StateDict, trained: PretrainedEncoder, folder: Path, license: str) -> None:
    """A folder with timm's config beside the weights."""
    data, method = trained.data, trained.config.method
    theirs = TIMM.outward(state, position_table(*data.grid, method.dim))
    with atomic_write(folder / WEIGHTS_FILE) as temporary:
        save_file(theirs, temporary, {"format": "pt"})
    config = {
        "architecture": "vit_base_patch16_224",
        "num_classes": 0,
        "num_features": method.dim,
        "global_pool": "avg",
        "model_args": {
            "img_size": list(data.size),
            "patch_size": data.patch,
            "in_chans": data.channels,
            "embed_dim": method.dim,
            "depth": method.depth,
            "num_heads": method.num_heads,
            "mlp_ratio": method.mlp_ratio,
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
    }
    write_json(config, folder / "config.json")
