"""Settings that an older version wrote are read under today's names, with today's values."""

import json
from pathlib import Path

import pytest

from openjepa.core.errors import UserError
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.quadrants import Quadrants
from openjepa.training.config import Pretrain, from_json, to_json
from openjepa.training.migrations import FORMAT, RENAMED_IN_2, VALUES_IN_2, migrate

STORED = json.loads((Path(__file__).parent / "formats" / "1" / "config.json").read_text())


def as_format_1(settings: dict) -> dict:
    """Write settings of format 2 under the names and values of format 1."""
    old = {"format": 1}
    for name, value in settings.items():
        if name == "format":
            continue
        if isinstance(value, dict):
            names = {new: before for before, new in RENAMED_IN_2.get(name, {}).items()}
            values = {
                new: {after: before for before, after in each.items()}
                for (group, new), each in VALUES_IN_2.items()
                if group == name
            }
            value = {
                names.get(key, key): values.get(key, {}).get(each, each) if isinstance(each, str) else each
                for key, each in value.items()
            }
        old[{new: before for before, new in RENAMED_IN_2[""].items()}.get(name, name)] = value
    return old


@pytest.mark.parametrize("name", ["cifar10-muon", "mae-cifar10", "vicreg-cifar10", "ijepa-vith14-in1k"])
def test_settings_of_format_1_are_those_of_format_2(name):
    from openjepa.recipes.registry import load_recipe

    settings = to_json(load_recipe(name))
    assert settings["format"] == FORMAT == 2
    old = as_format_1(settings)
    assert old.keys() != settings.keys() and from_json(old) == load_recipe(name)


def test_the_stored_settings_of_format_1_are_read():
    settings = from_json(STORED)
    assert settings.optim.ema_momentum == STORED["optim"]["momentum"]
    assert settings.masks.context_fraction == STORED["masks"]["budget"]
    assert settings.rank_timeout == STORED.get("patience", Pretrain.rank_timeout)


def test_every_old_name_leads_to_a_setting_of_today():
    plain = {group: to_json(Pretrain())[group] for group in ("data", "masks", "optim")} | {"": to_json(Pretrain())}
    for group, fields in plain.items():
        assert set(RENAMED_IN_2[group].values()) <= fields.keys()
        assert not set(RENAMED_IN_2[group]) & fields.keys()


def test_settings_of_today_are_not_renamed_and_other_formats_are_refused():
    settings = to_json(Pretrain())
    assert migrate(settings) is settings
    with pytest.raises(UserError, match="format"):
        from_json({**settings, "format": 3})


def test_each_old_setting_keeps_its_value_under_its_new_name():
    """Written out by hand, so that a wrong entry of the table cannot go unnoticed."""
    old = {
        "format": 1,
        "sharded": True, "recompute": True, "save_beside": False, "patience": "7m", "other_data": True,
        "boards": ["wandb"], "online": {"root": ["labeled"], "every": 9, "samples": 90},
        "data": {"type": "image", "embed": "convolutions", "colour": 0.3, "fit": "squash"},
        "method": {
            "type": "jepa", "target_sees": "asked", "target_every": 3, "centre": True, "standardise": True,
            "gaussian": 0.2, "pixels": 0.7, "init": "xavier", "stem_init": "unit",
        },
        "masks": {"sampler": "random", "asked": 0.4, "hidden": 0.8, "budget": 0.3, "times": 1},
        "optim": {"recent": 0.1, "momentum": 0.9, "final_momentum": 0.95, "hold": 0.2, "matrices": "muon"},
    }  # fmt: skip
    run = from_json(old)
    assert (run.fsdp, run.activation_checkpointing, run.async_save) == (True, True, False)
    assert (run.rank_timeout, run.allow_data_change, run.loggers) == ("7m", True, ("wandb",))
    assert run.online_probe.root == ("labeled",) and run.online_probe.every == 9
    assert (run.data.stem, run.data.color_jitter, run.data.eval_crop) == ("convolutions", 0.3, "squash")
    method, masks, optim = run.method, run.masks, run.optim
    assert (method.target_input, method.target_stride, method.center) == ("targets_only", 3, True)
    assert (method.standardize, method.sigreg_weight, method.pixel_loss_weight) == (True, 0.2, 0.7)
    assert (method.init, method.stem_init) == ("scaled", "scaled")
    assert (masks.target_fraction, masks.mask_ratio) == (0.4, 0.8)
    assert (optim.ema_rampup, optim.ema_momentum, optim.final_ema_momentum) == (0.1, 0.9, 0.95)
    assert (optim.constant_fraction, optim.optimizer) == (0.2, "muon")
    autoencoder = {"type": "mae", "predictor_heads": 8, "normalise": False, "init": "released"}
    several = from_json({**old, "method": autoencoder, "masks": {"sampler": "blocks", "times": 2}})
    assert (several.method.normalize_targets, several.method.init) == (False, "paper")
    assert several.masks == MultiBlock(masks_per_sample=2)
    decoder = {"type": "decoder", "drawn_dim": 64, "drawn_depth": 3, "drawn_heads": 2}
    drawn = from_json({**old, "method": decoder, "masks": {"sampler": "rasterized"}})
    assert (drawn.method.decoder_dim, drawn.method.decoder_depth, drawn.method.decoder_heads) == (64, 3, 2)
    assert drawn.masks == Quadrants()
