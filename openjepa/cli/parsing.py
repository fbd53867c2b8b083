"""Choose the settings that flags then change: those of the resumed run, of a recipe, or fit for the files."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from openjepa.core import registry
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.recipes.auto import choose_config, start_from_run
from openjepa.recipes.detect import detect_modality
from openjepa.recipes.registry import make_recipe
from openjepa.training.config import PARTS, Pretrain, load_config
from openjepa.training.stages import STAGES_FILE, Stages, load_stages

RENAMED_FLAGS = {  # of earlier versions -> flag of today
    "--masks.sampler": "--masks",
    "--method.dim": "--method.encoder.dim",
    "--method.depth": "--method.encoder.depth",
    "--method.num-heads": "--method.encoder.num-heads",
    "--method.positions": "--method.encoder.positions",
    "--method.predictor-dim": "--method.predictor.dim",
    "--method.predictor-depth": "--method.predictor.depth",
    "--method.predictor-heads": "--method.predictor.num-heads",
    "--method.mlp-ratio": "--method.encoder.mlp-ratio",
    "--method.stem-init": "--method.encoder.stem-init",
    "--method.center": "--method.target-transforms center",
    "--method.standardize": "--method.target-transforms standardize",
}


def default_settings(arguments: list[str]) -> tuple[Pretrain | Stages, list[str]]:
    """Return the settings that the flags then override, and the arguments without the recipe's name.

    --modality, --method and --masks choose classes, whose own settings then are flags; they are left out, too.
    """
    name, rest = (arguments[0], arguments[1:]) if arguments and not arguments[0].startswith("-") else (None, arguments)
    choices, rest = pop_choices(rest)
    out, resume = Path(flag_value(rest, "--out") or "runs/pretrain"), flag_value(rest, "--resume")
    if resume in ("yes", "if-any") and (out / "config.json").is_file():
        config = dataclasses.replace(load_config(out), out=out)
        check_same_choices(config, choices)
        return config, rest
    if resume in ("yes", "if-any") and not name and (out / STAGES_FILE).is_file():
        return load_stages(out), rest
    if name:
        recipe = make_recipe(name)
        return recipe if isinstance(recipe, Stages) else choose_classes(recipe, choices), rest
    asks_help = "-h" in rest or "--help" in rest
    # a Slurm job chooses its settings on the machine where it runs
    submits = any(each.startswith("--slurm.") for each in rest) and "--dry-run" not in rest
    if not flag_values(rest, "--data.root") or asks_help or submits:
        if asks_help and "modality" not in choices:
            choices |= modality_of_help(flag_values(rest, "--data.root"))
        return choose_classes(Pretrain(), choices), rest
    modality = choices.pop("modality", None) or detect_modality(flag_values(rest, "--data.root"))
    return choose_classes(chosen_settings(modality, rest), choices), rest


def modality_of_help(roots: tuple[str, ...]) -> dict[str, str]:
    """Return the modality whose flags --help lists: that of the files, or none if they do not tell."""
    try:
        return {"modality": detect_modality(roots)} if roots else {}
    except UserError:
        return {}  # the command itself says what is wrong; its help is that for images


def chosen_settings(modality: str, arguments: list[str]) -> Pretrain:
    """Choose settings for the files below --data.root and this machine, and print the reasons."""
    threads = flag_value(arguments, "--threads") or ""  # per process; the parser rejects all but integers
    all_threads = int(threads) * int(os.environ.get("WORLD_SIZE", "1")) if threads.isdecimal() else 0
    budget, device = flag_value(arguments, "--budget") or "", flag_value(arguments, "--device") or "auto"
    chosen = choose_config(flag_values(arguments, "--data.root"), budget, device, all_threads, modality)
    start = Path(flag_value(arguments, "--init-from") or "")
    if start.name and (start / "config.json").is_file():
        chosen = start_from_run(chosen, load_config(start), start)
    if chosen.reasons and os.environ.get("RANK", "0") == "0":
        info("\n".join(f"chosen     {reason}" for reason in chosen.reasons) + "; flags change it")
    return chosen.config


def pop_choices(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the values of --modality, --method and --masks by kind, and the arguments without them."""
    for old, new in RENAMED_FLAGS.items():
        if flag_values(arguments, old) or old in arguments:
            raise UserError(f"{old} is now {new}: type {new} {' '.join(flag_values(arguments, old))}".rstrip())
    choices, rest = {}, list(arguments)
    for kind in PARTS.values():
        flag, name = f"--{kind}", flag_value(rest, f"--{kind}")
        if name is None and flag in rest:
            raise UserError(f"{flag} needs a name: choose one of {', '.join(registry.names(kind))}")
        if name is not None:
            choices[kind] = name
            rest = without_flag(rest, f"--{kind}")
    return choices, rest


def without_flag(arguments: list[str], flag: str) -> list[str]:
    """Return the arguments without a flag and its values."""
    rest, skipping = [], False
    for each in arguments:
        if each.startswith("--"):
            skipping = each == flag or each.startswith(f"{flag}=")
        if not skipping:
            rest.append(each)
    return rest


def choose_classes(config: Pretrain, choices: dict[str, str]) -> Pretrain:
    """Return the config with other classes of data, method or masks; settings that both classes have stay."""
    for part, kind in PARTS.items():
        if kind in choices:
            before, cls = getattr(config, part), registry.find(kind, choices[kind])
            if type(before) is not cls:
                config = dataclasses.replace(config, **{part: convert_settings(before, cls)})
    return config


def convert_settings(settings: Any, cls: type) -> Any:
    """Return settings of another class, with the values of fields that have the same name and type of value."""
    own = {each.name: each for each in dataclasses.fields(settings)}
    shared = [each.name for each in dataclasses.fields(cls) if each.name in own and each.type == own[each.name].type]
    return cls(**{name: getattr(settings, name) for name in shared})


def check_same_choices(config: Pretrain, choices: dict[str, str]) -> None:
    """Raise UserError if a flag names another class than that of the resumed run."""
    for part, kind in PARTS.items():
        name = registry.name_of(kind, getattr(config, part))
        if choices.get(kind, name) != name:
            raise UserError(
                f"{config.out} was started with --{kind} {name}, not {choices[kind]}: leave --{kind} out, "
                "or give another --out"
            )


def flag_values(arguments: list[str], flag: str) -> tuple[str, ...]:
    """Return the values after a flag, before the arguments are parsed."""
    for index, each in enumerate(arguments):
        if each.startswith(f"{flag}="):
            return (each.removeprefix(f"{flag}="),)
        if each == flag:
            rest = arguments[index + 1 :]
            return tuple(rest[: next((i for i, value in enumerate(rest) if value.startswith("--")), len(rest))])
    return ()


def flag_value(arguments: list[str], flag: str) -> str | None:
    """Return the first value after a flag, or None."""
    return next(iter(flag_values(arguments, flag)), None)
