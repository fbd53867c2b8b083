"""Settings that an older version wrote are read under today's names, with today's values."""

import json
from pathlib import Path

import pytest

from openjepa.core.errors import UserError
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
