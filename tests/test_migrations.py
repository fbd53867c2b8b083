"""Settings that an older version wrote are read under today's names, with today's values."""

import json
from pathlib import Path

import pytest

from openjepa.core import registry
from openjepa.core.errors import UserError
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.official import Official
from openjepa.masking.quadrants import Quadrants
from openjepa.masking.random import Random
from openjepa.methods.vicreg import VICReg
from openjepa.nn.expander import ExpanderConfig
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.training.config import Pretrain, from_json, to_json
from openjepa.training.migrations import FORMAT, migrate
from studies.small_data import arms

FORMATS = Path(__file__).parent / "formats"
STORED = {number: json.loads((FORMATS / str(number) / "config.json").read_text()) for number in (1, 2)}

SIZES = {"dim": 48, "depth": 3, "num_heads": 2, "mlp_ratio": 3.0, "positions": "rope"}
PREDICTOR = {"predictor_dim": 24, "predictor_depth": 2, "predictor_heads": 4}
OFF = {"registers": 0, "target_join": "average", "predictor_context": "each", "whiten": 0.0, "sigreg_weight": 0.0}


def format_2(method: dict, masks: dict | None = None) -> dict:
    """Return settings as format 2 had them."""
    return {**STORED[2], "method": method, "masks": masks or {"sampler": "multiblock"}}


def test_the_stored_settings_of_format_1_are_read():
    settings, stored = from_json(STORED[1]), STORED[1]
    assert settings.optim.ema_momentum == stored["optim"]["momentum"]
    assert settings.masks.context_fraction == stored["masks"]["budget"]
    assert settings.rank_timeout == stored.get("patience", Pretrain.rank_timeout)
    assert settings.method.encoder.dim == stored["method"]["dim"]


def test_the_stored_settings_of_format_2_are_read():
    settings, stored = from_json(STORED[2]), STORED[2]
    assert settings.masks == Random(mask_ratio=0.5)
    assert settings.method.encoder == ViTConfig(16, 1, 2, init="scaled", stem_init="scaled")
    assert settings.method.predictor == PredictorConfig(8, 1, init="scaled")
    assert settings.method.target_transforms == ("center", "standardize")
    assert settings.optim.lr == stored["optim"]["lr"]


def test_settings_of_today_are_not_changed_and_other_formats_are_refused():
    settings = to_json(Pretrain())
    assert settings["format"] == FORMAT == 3 and migrate(settings) is settings
    with pytest.raises(UserError, match="format"):
        from_json({**settings, "format": 4})


def test_each_setting_of_format_1_keeps_its_value_under_its_new_name():
    """Written out by hand, so that a wrong entry of the table cannot go unnoticed."""
    old = {
        "format": 1,
        "sharded": True, "recompute": True, "save_beside": False, "patience": "7m", "other_data": True,
        "boards": ["wandb"], "online": {"root": ["labeled"], "every": 9, "samples": 90},
        "data": {"type": "image", "embed": "convolutions", "colour": 0.3, "fit": "squash"},
        "method": {
            "type": "jepa", "target_sees": "asked", "target_every": 3, "centre": True, "standardise": True,
            "gaussian": 0.0, "pixels": 0.7, "init": "xavier", "stem_init": "unit",
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
    assert (method.target_input, method.target_stride, method.pixel_loss_weight) == ("targets_only", 3, 0.7)
    assert method.target_transforms == ("center", "standardize")
    assert (method.encoder.init, method.encoder.stem_init, method.predictor.init) == ("scaled",) * 3
    assert (masks.target_fraction, masks.mask_ratio) == (0.4, 0.8)
    assert (optim.ema_rampup, optim.ema_momentum, optim.final_ema_momentum) == (0.1, 0.9, 0.95)
    assert (optim.constant_fraction, optim.optimizer) == (0.2, "muon")
    autoencoder = {"type": "mae", "predictor_heads": 8, "num_heads": 8, "normalise": False, "init": "released"}
    several = from_json({**old, "method": autoencoder, "masks": {"sampler": "blocks", "times": 2}})
    assert (several.method.normalize_targets, several.method.encoder.init) == (False, "paper")
    assert several.method.predictor.num_heads == 8
    assert several.masks == MultiBlock(masks_per_sample=2)
    decoder = {"type": "decoder", "drawn_dim": 64, "drawn_depth": 3, "drawn_heads": 2, "pixels": 0.5}
    read = from_json({**old, "method": decoder, "masks": {"sampler": "rasterized"}})
    assert (read.method.decoder_dim, read.method.decoder_depth, read.method.decoder_heads) == (64, 3, 2)
    assert read.masks == Quadrants() and read.method.predicts_pixels


@pytest.mark.parametrize("kind", ["jepa", "mae", "decoder"])
def test_the_sizes_of_format_2_are_nested(kind):
    method = from_json(format_2({"type": kind, **SIZES, **PREDICTOR, "init": "scaled", **OFF})).method
    assert method.encoder == ViTConfig(48, 3, 2, 3.0, "rope", init="scaled")
    assert method.predictor == PredictorConfig(24, 2, 4, init="scaled")


def test_the_expander_of_format_2_is_nested():
    old = {"type": "vicreg", **SIZES, **PREDICTOR, "masked": True, "covariance": 2.0, "registers": 0}
    encoder = ViTConfig(48, 3, 2, 3.0, "rope")
    assert from_json(format_2(old)).method == VICReg(encoder, ExpanderConfig(24, 2), covariance=2.0, masked=True)


def test_only_the_settings_of_the_chosen_masks_are_kept():
    masks = {"targets": 2, "mask_ratio": 0.9, "min_keep": 5, "masks_per_sample": 3}
    for name, expected in (
        ("official", Official(targets=2, min_keep=5, masks_per_sample=3)),
        ("random", Random(mask_ratio=0.9, masks_per_sample=3)),
    ):
        assert from_json(format_2({"type": "jepa", **OFF}, {"sampler": name, **masks})).masks == expected


REMOVED = {
    "registers": 4, "target_join": "concat", "predictor_context": "shared", "whiten": 0.5, "sigreg_weight": 1.0
}  # fmt: skip


@pytest.mark.parametrize("name", REMOVED)
def test_a_run_with_a_removed_option_needs_the_plug_in_that_has_it(name, monkeypatch):
    old = format_2({"type": "jepa", **SIZES, **OFF, name: REMOVED[name]})
    with monkeypatch.context() as patch:
        patch.setattr(registry, "PLUGINS", registry.Plugins())
        flag = f"--method.{name.replace('_', '-')} {REMOVED[name]}"
        with pytest.raises(UserError, match=f"used {flag}, which is now in a plug-in: add --plugin studies"):
            from_json(old)
    assert arms.ARMS  # which loads the plug-in
    method = from_json(old).method
    assert getattr(method, name) == REMOVED[name] and registry.name_of("method", method) == "jepa-variants"


def test_a_removed_option_of_another_method_is_refused_unless_it_had_no_effect():
    with pytest.raises(UserError, match=r"mae run used --method.registers 2, which openjepa 0.1 was the last"):
        from_json(format_2({"type": "mae", **SIZES, **OFF, "registers": 2}))
    decoder = {"type": "decoder", **SIZES, **OFF, "decoder_dim": 64, "whiten": 0.5, "sigreg_weight": 1.0}
    assert from_json(format_2(decoder)).method.decoder_dim == 64  # they were settings of the decoded run's targets
    with pytest.raises(UserError, match="--method.predictor-context shared"):
        from_json(format_2({**decoder, "predictor_context": "shared"}))


def test_settings_of_a_plug_in_are_not_changed():
    own = {"type": "own-method", "dim": 3, "registers": 9}
    assert migrate(format_2(own))["method"] == own
