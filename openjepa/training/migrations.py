"""Read the settings of older formats: rename their keys and values to those of today."""

from __future__ import annotations

from typing import Any

from openjepa.core import registry
from openjepa.core.errors import UserError
from openjepa.data.image_values import LEGACY

# 1: before the settings had the field's names; 2: one class of masks for all strategies, sizes of networks not nested
FORMAT = 3

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


ENCODER_IN_3 = ("dim", "depth", "num_heads", "mlp_ratio", "positions", "init", "stem_init")  # now of `encoder`
PREDICTOR_IN_3 = {"predictor_dim": "dim", "predictor_depth": "depth", "predictor_heads": "num_heads", "init": "init"}
EXPANDER_IN_3 = {"predictor_dim": "dim", "predictor_depth": "depth"}  # of VICReg

OWN_IN_3 = {  # method -> settings that it still has beside its networks
    "jepa": ("loss", "target_layers", "target_input", "target_stride", "pixel_loss_weight"),
    "mae": ("normalize_targets",),
    "vicreg": ("invariance", "variance", "covariance", "masked"),
    "decoder": ("condition", "pooled", "decoder_dim", "decoder_depth", "decoder_heads"),
}

REMOVED_IN_3 = {  # setting -> its value when it has no effect
    "registers": 0, "target_join": "average", "predictor_context": "each", "whiten": 0.0, "sigreg_weight": 0.0,
}  # fmt: skip
NETWORKS_DIFFER = ("registers", "target_join", "predictor_context")  # a decoder needs these of the run that it decodes

VARIANTS, VARIANTS_FILE = (
    "jepa-variants",
    "studies/small_data/jepa_variants.py",
)  # the plug-in that has what was removed


def migrate(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of an older format under today's names, all others unchanged."""
    if settings.get("format") == 1:
        groups = {name: rename(name, value) for name, value in settings.items() if isinstance(value, dict)}
        settings = rename("", settings | groups | {"format": 2})
    if settings.get("format") == 2:
        method, masks = nest_networks(settings["method"]), split_masks(settings["masks"])
        settings = settings | {"method": method, "masks": masks, "format": 3}
    return keep_old_range(settings)


def keep_old_range(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of before images had a range of values with the one that was used: 65,535 for 16 bits."""
    streams = settings.get("streams", ())
    if not any(is_trained_without_range(each["data"]) for each in (settings, *streams)):
        return settings
    streams = [each | {"data": with_old_range(each["data"])} for each in streams]
    return settings | {"data": with_old_range(settings["data"])} | ({"streams": streams} if streams else {})


def with_old_range(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"value_range": list(LEGACY)} if is_trained_without_range(data) else data


def is_trained_without_range(data: dict[str, Any]) -> bool:
    """Return whether these are settings of images, measured by a version that knew no range of values."""
    return data.get("type") == "image" and "value_range" not in data and bool(data.get("mean"))


def split_masks(masks: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the strategy that `sampler` names; those of the others had no effect."""
    strategy = masks.get("sampler", "multiblock")
    names = {"masks_per_sample", *MASKS_IN_3.get(strategy, masks)} - {"sampler"}
    return {"type": strategy, **{name: value for name, value in masks.items() if name in names}}


def nest_networks(method: dict[str, Any]) -> dict[str, Any]:
    """Return a method's settings with the sizes of each network in a group of its own; those of plug-ins unchanged.

    Raises UserError if the run used a setting that is now in a plug-in which is not loaded.
    """
    kind = method.get("type", "")
    if kind not in OWN_IN_3:
        return method
    nested = {"type": kind, **{name: value for name, value in method.items() if name in OWN_IN_3[kind]}}
    nested["encoder"] = {name: value for name, value in method.items() if name in ENCODER_IN_3}
    names = EXPANDER_IN_3 if kind == "vicreg" else PREDICTOR_IN_3
    nested["expander" if kind == "vicreg" else "predictor"] = {
        new: method[old] for old, new in names.items() if old in method
    }
    if kind == "jepa":
        nested["target_transforms"] = [name for name in ("center", "standardize") if method.get(name)]
    if kind == "decoder":
        nested["predicts_pixels"] = bool(method.get("pixel_loss_weight"))
    return restore_removed(method, nested)


def restore_removed(method: dict[str, Any], nested: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the plug-in that has what was removed, if the run used it, else `nested`."""
    used = {name: method[name] for name, off in REMOVED_IN_3.items() if method.get(name, off) != off}
    if nested["type"] == "decoder":
        used = {name: value for name, value in used.items() if name in NETWORKS_DIFFER}
    if not used:
        return nested
    flags = " ".join(f"--method.{name.replace('_', '-')} {value}" for name, value in used.items())
    if nested["type"] != "jepa":
        raise UserError(f"this {nested['type']} run used {flags}, which openjepa 0.1 was the last version to have")
    if VARIANTS not in registry.names("method"):
        raise UserError(f"this run used {flags}, which is now in a plug-in: add --plugin {VARIANTS_FILE}")
    return {**nested, **used, "type": VARIANTS}


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
