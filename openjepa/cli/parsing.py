"""Choose the settings that flags then change: those of the resumed run, of a recipe, or fit for the files."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from openjepa.core.console import info
from openjepa.recipes.auto import choose_config, start_from_run
from openjepa.recipes.registry import load_recipe
from openjepa.training.config import Pretrain, load_config


def default_settings(arguments: list[str]) -> tuple[Pretrain, list[str]]:
    """Return the settings that the flags then override, and the arguments without the recipe's name."""
    name, rest = (arguments[0], arguments[1:]) if arguments and not arguments[0].startswith("-") else (None, arguments)
    out, resume = Path(flag_value(rest, "--out") or "runs/pretrain"), flag_value(rest, "--resume")
    if resume in ("yes", "if-any") and (out / "config.json").is_file():
        return dataclasses.replace(load_config(out), out=out), rest
    if name:
        return load_recipe(name), rest
    asks_help = "-h" in rest or "--help" in rest
    # a Slurm job chooses its settings on the machine where it runs
    submits = any(each.startswith("--slurm.") for each in rest) and "--dry-run" not in rest
    if not flag_values(rest, "--data.root") or asks_help or submits:
        return Pretrain(), rest
    return chosen_settings(rest), rest


def chosen_settings(arguments: list[str]) -> Pretrain:
    """Choose settings for the files below --data.root and this machine, and print the reasons."""
    threads = flag_value(arguments, "--threads") or ""  # per process; the parser rejects all but integers
    all_threads = int(threads) * int(os.environ.get("WORLD_SIZE", "1")) if threads.isdecimal() else 0
    budget, device = flag_value(arguments, "--budget") or "", flag_value(arguments, "--device") or "auto"
    chosen = choose_config(flag_values(arguments, "--data.root"), budget, device, all_threads)
    start = Path(flag_value(arguments, "--init-from") or "")
    if start.name and (start / "config.json").is_file():
        chosen = start_from_run(chosen, load_config(start), start)
    if os.environ.get("RANK", "0") == "0":
        info("\n".join(f"chosen     {reason}" for reason in chosen.reasons) + "; flags change it")
    return chosen.config


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
