"""Read the settings of older formats: rename their keys and values to those of today."""

from __future__ import annotations

from typing import Any

FORMAT = 2  # 1: before the settings had the field's names

RENAMED_IN_2 = {  # group -> old name -> new name; "" is the top level
    "": {
        "sharded": "fsdp", "recompute": "activation_checkpointing", "save_beside": "async_save",
        "patience": "rank_timeout", "other_data": "allow_data_change", "online": "online_probe", "boards": "loggers",
    },
    "data": {"embed": "stem", "colour": "color_jitter", "fit": "eval_crop"},
    "method": {
        "target_sees": "target_input", "target_every": "target_stride",
        "centre": "center", "standardise": "standardize",
        "gaussian": "sigreg_weight", "pixels": "pixel_loss_weight", "normalise": "normalize_targets",
        "drawn_dim": "decoder_dim", "drawn_depth": "decoder_depth", "drawn_heads": "decoder_heads",
    },
    "masks": {
        "asked": "target_fraction", "hidden": "mask_ratio", "budget": "context_fraction", "times": "masks_per_sample",
    },
    "optim": {
        "recent": "ema_rampup", "momentum": "ema_momentum", "final_momentum": "final_ema_momentum",
        "hold": "constant_fraction", "matrices": "optimizer",
    },
}  # fmt: skip
VALUES_IN_2 = {  # (group, new name) -> old value -> new value
    ("masks", "sampler"): {"blocks": "multiblock", "rasterized": "quadrants"},
    ("method", "init"): {"released": "paper", "xavier": "scaled"},
    ("method", "stem_init"): {"released": "paper", "unit": "scaled"},
    ("method", "target_input"): {"asked": "targets_only"},
}


def migrate(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of format 1 under today's names, settings of other formats unchanged."""
    if settings.get("format") != 1:
        return settings
    groups = {name: rename(name, value) for name, value in settings.items() if isinstance(value, dict)}
    return rename("", settings | groups | {"format": FORMAT})


def rename(group: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return one group of settings with format 2's names and values."""
    names = RENAMED_IN_2.get(group, {})
    renamed = {names.get(name, name): value for name, value in settings.items()}
    for name, value in renamed.items():
        values = VALUES_IN_2.get((group, name), {})
        if isinstance(value, str):
            renamed[name] = values.get(value, value)
    return renamed


def migrate_provenance(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return the contents of an about.json of any version under today's names."""
    return {"license" if name == "licence" else name: value for name, value in provenance.items()}
