"""Read the settings of older formats: rename their keys and values to those of today."""

from __future__ import annotations

from typing import Any

FORMAT = 3  # 1: before the settings had the field's names; 2: one class of masks for all strategies

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


MASKS_IN_3 = {  # strategy -> settings that it has, beside masks_per_sample
    "multiblock": ("targets", "target_scale", "target_aspect", "context_scale", "context_fraction"),
    "official": ("targets", "target_scale", "target_aspect", "context_scale", "min_keep"),
    "block": ("target_aspect",),
    "quadrants": (),
    "random": ("mask_ratio", "target_fraction"),
}


def migrate(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of an older format under today's names, all others unchanged."""
    if settings.get("format") == 1:
        groups = {name: rename(name, value) for name, value in settings.items() if isinstance(value, dict)}
        settings = rename("", settings | groups | {"format": 2})
    if settings.get("format") == 2:
        settings = settings | {"masks": split_masks(settings["masks"]), "format": 3}
    return settings


def split_masks(masks: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the strategy that `sampler` names; those of the others had no effect."""
    strategy = masks.get("sampler", "multiblock")
    names = {"masks_per_sample", *MASKS_IN_3.get(strategy, masks)} - {"sampler"}
    return {"type": strategy, **{name: value for name, value in masks.items() if name in names}}


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
