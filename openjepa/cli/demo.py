"""Command `jepa demo`: generate data, train an encoder on it and measure it; one file per demo in cli/demos/.

A demo is a function of its file's name, from settings to scores; `DEFAULTS` in that file has its own sizes,
`describe_split` says what the scores were measured on, and `draw` draws a figure once they are written.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys

from openjepa.cli.settings import Demo
from openjepa.core import registry
from openjepa.core.console import draw_safely, info
from openjepa.core.errors import UserError
from openjepa.core.fileio import read_json, write_text
from openjepa.core.types import Score
from openjepa.evaluation.scores import describe_scores, print_scores, write_scores
from openjepa.training.stages import last_stage
from openjepa.viz.report import write_report_at_end


def demo(settings: Demo) -> list[Score]:
    """Run a demo and write its scores to demo.json in the folder `out`; print, draw and report them beside baselines.

    The report of the demo's run has the scores, too, with the data and the command.
    """
    run = registry.find("demo", settings.name)
    module = sys.modules[run.__module__]
    settings = settings.with_defaults(module.DEFAULTS)
    require_same_run(settings)
    scores = run(settings)
    about = {"demo": settings.name, "settings": json.loads(json.dumps(dataclasses.asdict(settings), default=str))}
    file = write_scores(settings.out / "demo.json", scores, about)
    print_scores(scores, f"{describe_scores(scores)} (95 % interval)")
    info(f"written    {file}")
    draw_safely("the figure", lambda: module.draw(settings))
    origin = {"command": command_line(settings), "split": module.describe_split(settings)}
    run_folder = last_stage(settings.out / "run")
    write_scores(run_folder / "probes" / f"demo-{settings.name}.json", scores, about | origin)
    write_report_at_end(run_folder)
    return scores


def require_same_run(settings: Demo) -> None:
    """Write which run a folder holds. Raises UserError if it holds that of another demo, seed, size or length."""
    file = settings.out / "pretraining.json"
    given = {name: getattr(settings, name) for name in ("name", "samples", "epochs", "budget", "seed")}
    if not file.exists():
        settings.out.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(given, indent=1))
        return
    earlier = read_json(file)
    if different := [name for name in given if earlier.get(name) != given[name]]:
        name = different[0]
        raise UserError(
            f"{settings.out} holds a demo with {name} {earlier.get(name)}, not {given[name]}: give another --out"
        )


def command_line(settings: Demo) -> str:
    """Return the command that runs a demo with these settings."""
    sizes = {each.name: getattr(settings, each.name) for each in dataclasses.fields(settings) if each.name != "name"}
    flags = [
        part for name, value in sizes.items() for part in (f"--{name}", f"{value:g}" if name == "epochs" else value)
    ]
    return shlex.join(["jepa", "demo", settings.name, *map(str, flags)])
