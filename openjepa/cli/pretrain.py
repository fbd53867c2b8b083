"""Command `jepa pretrain`: train an encoder on unlabeled data."""

from __future__ import annotations

import os
from pathlib import Path

from openjepa.cli.grouped import parse_grouped
from openjepa.cli.parsing import default_settings
from openjepa.core import registry
from openjepa.core.console import draw_safely, info
from openjepa.training import run
from openjepa.training.callbacks import Callbacks
from openjepa.training.config import PARTS, Pretrain, config_differences
from openjepa.training.device import Device
from openjepa.training.parallel.slurm import submit_to_slurm
from openjepa.training.stages import Stages, run_stages

DESCRIPTION = """Train an encoder on unlabeled data. Without RECIPE, it chooses settings for the files and this machine.

The settings that people change:
  --data.root FOLDER …    images: nested or flat folders, .tar, .parquet, or a .txt of paths; or the files of a modality
  --modality NAME         {modality}; default: as the files tell
  --method NAME           {method}; the flags below are those of the chosen classes
  --masks NAME            {masks}
  --out FOLDER            where checkpoints, log, encoder and report go
  --budget 2h             time for the run; or --epochs 100, or --steps 10000
  --resume                continue the run in --out, bit-exact
  --batch-size 256        samples per step, over all processes
  --optim.lr 1e-3         peak learning rate
  --device cuda           and --precision bf16
  --seed 1                another seed, another run
  --init-from RUN         start from another run's weights
  --plugin FILE.py        add a modality, method, mask strategy or recipe of your own
  --dry-run               time a few steps and print how long the run would take"""


def description() -> str:
    """Return the description with the names that can be chosen, those of plug-ins too."""
    return DESCRIPTION.format(**{kind: ", ".join(registry.names(kind)) for kind in PARTS.values()})


def pretrain(settings: Pretrain) -> Path:
    """Train an encoder and return its folder, with checkpoints, log, curves, report and the exported encoder.

    Raises:
        UserError: the settings, the data or the folder are unusable.
        RunError: the run cannot continue.
        Interrupted: a signal stopped the run; everything is saved.
    """
    return run.pretrain(settings, Callbacks(build_evaluator, draw_training_curves, write_report))


def build_evaluator(settings: Pretrain, device: Device):
    """Build the probes of the target encoder during the run."""
    from openjepa.evaluation.online import OnlineEvaluator

    return OnlineEvaluator(settings, device)


def draw_training_curves(folders: list[Path], out: Path) -> Path | None:
    """Draw the training curves of one or several runs and return the file, or None if they could not be drawn."""
    from openjepa.viz.curves import save_curves

    return draw_safely(f"the curves {out}", lambda: save_curves(folders, out))


def write_report(folder: Path) -> Path | None:
    """Write the report of the finished run and return the file, or None if it could not be written."""
    from openjepa.viz.report import write_report_at_end

    return write_report_at_end(folder)


def main(arguments: list[str]) -> Path | None:
    """Parse the flags on top of the recipe, the resumed run or the automatic choice; run here or submit to Slurm."""
    typed = ["pretrain", *arguments]
    default, rest = default_settings([resume_value(arguments, index) for index in range(len(arguments))])
    recipe = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    start = f"Recipe {recipe}: the defaults below are its settings.\n\n" if recipe else ""
    if isinstance(default, Stages):
        return train_stages(default, rest, start, typed)
    settings = parse_grouped(default, rest, "jepa pretrain [RECIPE]", start + description())
    if settings.slurm.nodes and not settings.dry_run:
        submit(settings, typed)
        return None
    print_changed(default, settings)
    return pretrain(settings)


def submit(settings: Pretrain, typed: list[str]) -> None:
    """Submit the command to Slurm; the job runs it with the same plug-ins."""
    from openjepa.cli.main import main as jepa

    plugins = [f"--plugin={source}" for source in registry.PLUGINS.sources]
    submit_to_slurm(settings, [*typed, *plugins], jepa)


def train_stages(stages: Stages, arguments: list[str], start: str, typed: list[str]) -> Path | None:
    """Apply the flags to every stage of a recipe and run the stages one after another."""
    runs = [parse_grouped(each, arguments, "jepa pretrain RECIPE", start + description()) for each in stages.runs]
    if runs[0].slurm.nodes and not runs[0].dry_run:
        submit(runs[0], typed)
        return None
    folder = run_stages(Stages(tuple(runs)), runs[0].out, pretrain)
    info(f"finished   all stages; the last one is {folder}")
    return folder


def print_changed(default: Pretrain, settings: Pretrain) -> None:
    """Print which settings of a new run the user changed."""
    changed = config_differences(default, settings)
    if changed and not (settings.out / "config.json").exists() and os.environ.get("RANK", "0") == "0":
        info(f"changed    {'; '.join(changed)}")


def resume_value(arguments: list[str], index: int) -> str:
    """Return an argument, with a bare `--resume` completed to `--resume=yes`."""
    bare = index + 1 == len(arguments) or arguments[index + 1].startswith("--")
    return "--resume=yes" if arguments[index] == "--resume" and bare else arguments[index]
