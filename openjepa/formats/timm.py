"""Files under timm's names, as its `*_ijepa` models: read, and written as a folder that `create_model("local-dir:…")` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.formats.found import IMAGENET, Asked, Found, Pictures, ours, settings_of
from openjepa.formats.hugging_face import colour, config_of, licence_of, whole, write_json
from openjepa.formats.layouts import TIMM, State, position_table, sizes
from openjepa.trained import Trained
from openjepa.training.run_folder import Provenance

WEIGHTS = "model.safetensors"


def is_one(folder: Path) -> bool:
    """Whether a folder's config is one of timm's."""
    return "architecture" in config_of(folder)


def read(path: Path, asked: Asked) -> Found:
    """The encoder of a folder or of one file of safetensors. Mistake in a sentence if it is none."""
    folder, file = (path, path / WEIGHTS) if path.is_dir() else (path.parent, path)
    config = config_of(folder) if path.is_dir() else {}
    try:
        state = load_file(file)
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no {WEIGHTS}: only safetensors are read") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}): download it again") from error
    state = {name: x for name, x in state.items() if not name.startswith("head.")}
    known, made, told = sizes(state, TIMM, str(path)), part(config, "model_args"), part(config, "pretrained_cfg")
    size = made.get("img_size")
    pair = (size[0], size[1]) if isinstance(size, list) and [type(each) for each in size] == [int, int] else None
    colours = tuple(colour(told.get(name)) or IMAGENET[place] for place, name in enumerate(("mean", "std")))
    settings = settings_of(
        known, None, asked.num_heads or whole(made, "num_heads"), Pictures(pair, *colours), str(path)
    )
    licence = asked.licence or licence_of(folder) or (told["license"] if isinstance(told.get("license"), str) else "")
    assumed = (
        () if told.get("mean") else ("ImageNet's mean and deviation are taken, since nothing beside it says otherwise",)
    )
    networks = {"target": ours(state, TIMM, settings, "target", str(path))}
    return Found(settings, networks, Provenance(path.name, "timm", licence, assumed))


def part(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def write(state: State, trained: Trained, folder: Path, licence: str) -> None:
    """A folder with timm's config beside the weights."""
    data, method = trained.data, trained.config.method
    theirs = TIMM.outward(state, position_table(*data.grid, method.dim))
    with atomic_write(folder / WEIGHTS) as temporary:
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
            "crop_pct": 7 / 8 if data.fit == "margin" else 1.0,
            "crop_mode": "squash" if data.fit == "squash" else "center",
            "mean": list(data.mean),
            "std": list(data.std),
            "num_classes": 0,
            "license": licence,
        },
    }
    write_json(config, folder / "config.json")
