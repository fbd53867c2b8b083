"""Settings that are chosen for a folder when no recipe is named."""

import dataclasses

import pytest
import torch

from openjepa.cli import parsing
from openjepa.cli.parsing import default_settings
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.recipes import auto
from openjepa.recipes.auto import MAX_EPOCHS, AutoConfig, choose_config, cpu_config
from openjepa.recipes.registry import load_recipe
from openjepa.training.config import Pretrain
from openjepa.training.setup import prepare_data
from studies.small_data.arms import ARMS
from tests.conftest import CPU

SMALL = Image(size=(32, 32), patch=4)


def test_more_time_gives_larger_batches_up_to_a_quarter_of_the_folder(monkeypatch):
    monkeypatch.setattr(auto, "available_cores", lambda: 2)
    sizes = [cpu_config(SMALL, 50_000, 60.0 * minutes).config.batch_size for minutes in (1, 10, 60, 600, 6000)]
    assert sizes[0] == 64 and sizes == sorted(sizes) and sizes[-1] == 256
    assert [cpu_config(SMALL, count, 36_000.0).config.batch_size for count in (8, 40, 200)] == [2, 8, 32]


def test_fewer_threads_get_smaller_batches():
    assert [cpu_config(SMALL, 50_000, 3600.0, threads).config.batch_size for threads in (1, 16)] == [64, 256]


def test_the_threads_of_all_processes_are_counted(monkeypatch):
    asked = []

    def record(root, budget, device, threads, modality):
        asked.append(threads)
        return AutoConfig(Pretrain(), ("none",))

    monkeypatch.setattr(parsing, "choose_config", record)
    monkeypatch.setattr(parsing, "detect_modality", lambda root: "image")
    for world, flags in (("1", []), ("1", ["--threads", "2"]), ("3", ["--threads=2"]), ("1", ["--threads", "x"])):
        monkeypatch.setenv("WORLD_SIZE", world)
        default_settings(["--data.root", "photos", *flags])
    assert asked == [0, 2, 6, 0]


def test_a_run_has_at_least_one_epoch_and_at_most_the_maximum():
    assert cpu_config(SMALL, 10**6, 60.0).config.epochs == 1
    assert cpu_config(SMALL, 20, 0.0).config.epochs == MAX_EPOCHS


@pytest.mark.parametrize("gpu", [True, False])
def test_chosen_settings_can_be_built_on_every_grid(monkeypatch, photos, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    for side in (28, 64, 100, 400):
        monkeypatch.setattr(auto, "inspect_images", lambda _, side=side: (side, 3))
        found = choose_config((str(photos),), "1h")
        assert isinstance(found.config, Pretrain) and isinstance(found.config.method, JEPA)
        found.config.masks.shapes(found.config.data.layout)
        assert len(found.reasons) >= 2 and f"of about {side} pixels" in found.reasons[0]


def test_chosen_settings_have_a_short_ema_a_lower_learning_rate_than_the_recipe_and_reasons():
    config, reasons = cpu_config(Image(size=(32, 32), patch=4), 50_000, 600.0)
    named = load_recipe("cifar10-muon")
    assert config.optim == dataclasses.replace(named.optim, lr=2e-3, ema_rampup=0.1) and named.optim.lr > 2e-3
    layers = tuple(range(config.method.encoder.depth))  # with the last four only, other images come closer to collapse
    assert config.method == dataclasses.replace(named.method, target_layers=layers) and config.masks == named.masks
    assert any("Muon with learning rate 0.002" in reason for reason in reasons)
    assert any("10% of the steps so far, at most 100" in reason for reason in reasons)


def test_the_printed_number_of_steps_is_the_number_of_steps_of_the_run(photos, tmp_path):
    for file in sorted(photos.rglob("*.png"))[:27]:  # three more than six batches of four
        (tmp_path / file.name).symlink_to(file)
    config, reasons = choose_config((str(tmp_path),), device="cpu")
    _, settings = prepare_data(config, CPU, config.data.listing(), None)
    assert any(f": {settings.steps:,} steps" in reason for reason in reasons)


def test_the_laptop_recipe_has_the_settings_chosen_for_photographs():
    named, found = load_recipe("laptop"), cpu_config(Image(size=(96, 96), patch=8), 6_400, 300.0).config
    same = dataclasses.replace(named, epochs=found.epochs, data=found.data)
    assert same == found and named.data.grid == found.data.grid


def test_every_arm_of_the_study_can_be_built():
    for name, change in ARMS.items():
        settings = change(load_recipe("cifar10"))
        assert settings.masks.shapes(settings.data.layout), name


@pytest.mark.parametrize(
    ("name", "arm"),
    [
        ("cifar10-minutes", "upper"),
        ("cifar10-hours", "third"),
        ("cifar10-muon", "muon"),
        ("mae-cifar10", "MAE, light"),
        ("vicreg-cifar10", "VICReg, fast, a quarter shown"),
    ],
)
def test_recipes_equal_the_measured_arms_of_the_study(name, arm):
    arm, named = ARMS[arm](load_recipe("cifar10")), load_recipe(name)
    assert (arm.method, arm.masks, arm.optim, arm.batch_size) == (
        named.method,
        named.masks,
        named.optim,
        named.batch_size,
    )
