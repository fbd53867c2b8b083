"""Run a recipe of several stages: each is a run of its own that starts from the weights of the one before."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, read_json
from openjepa.training.checkpoint import list_checkpoints
from openjepa.training.config import Pretrain, from_json, load_config, to_json
from openjepa.training.locations import with_absolute_paths

STAGES_FILE = "stages.json"


@dataclass(frozen=True)
class Stages:
    """The runs of a recipe, in order.

    A stage starts from the weights of the stage before, unless it has an `init_from` or a teacher of its own; both may
    name an earlier stage, such as "stage-1".
    """

    runs: tuple[Pretrain, ...]


def stage_folder(out: Path, number: int) -> Path:
    """Return the folder of a stage, numbered from 1."""
    return out / f"stage-{number}"


def last_stage(folder: Path) -> Path:
    """Return the folder of the last finished stage of a recipe; a run without stages is its own."""
    stages = [each for each in folder.glob("stage-*") if (each / "export" / "config.json").is_file()]
    return max(stages, key=lambda each: int(each.name.removeprefix("stage-")), default=folder)


def run_stages(stages: Stages, out: Path, pretrain: Callable[[Pretrain], Any]) -> Path:
    """Run the stages that are not finished, one after another, and return the folder of the last.

    Called again with `resume`, it goes on where it stopped, inside a stage or between two. Raises UserError if the
    folder holds the stages of another call and `resume` is not given.
    """
    if stages.runs[0].dry_run:
        return dry_run_stages(stages, out, pretrain)
    for stage in stages.runs:
        stage.data.listing()  # files that a later stage lacks are missed before the first one trains
    if os.environ.get("RANK", "0") == "0":  # the processes form a group only inside a stage
        record_stages(stages, out)
    for number, stage in enumerate(stages.runs, 1):
        settings = place_stage(stage, out, number)
        if is_finished(settings):
            info(f"stage {number}    of {len(stages.runs)} is finished: {settings.out}")
            continue
        info(f"stage {number}    of {len(stages.runs)}: {settings.out}")
        pretrain(settings)
    return stage_folder(out, len(stages.runs))


def record_stages(stages: Stages, out: Path) -> None:
    """Write the settings of all stages. Raises UserError if a run is there already and `resume` is not given."""
    if (out / STAGES_FILE).is_file() and stages.runs[0].resume == "no":
        raise UserError(f"{out} already holds a run: continue it with --resume, or give another --out")
    names = {f"stage-{number}" for number in range(1, len(stages.runs) + 1)}
    runs = [to_json(with_absolute_paths(stage, names)) for stage in stages.runs]
    with atomic_write(out / STAGES_FILE) as temporary:
        temporary.write_text(json.dumps({"stages": runs}, indent=1), encoding="utf-8")


def dry_run_stages(stages: Stages, out: Path, pretrain: Callable[[Pretrain], Any]) -> Path:
    """Time a few steps of each stage; one with a teacher that is an earlier stage can be timed only after that."""
    for number, stage in enumerate(stages.runs, 1):
        settings = place_stage(stage, out, number)
        if any(not Path(folder).exists() for folder in settings.method.teachers().values()):
            info(f"stage {number}    of {len(stages.runs)}: cannot be timed before its teacher is trained")
            continue
        info(f"stage {number}    of {len(stages.runs)}:")
        pretrain(settings)
    return stage_folder(out, len(stages.runs))


def place_stage(stage: Pretrain, out: Path, number: int) -> Pretrain:
    """Return the settings of a stage with its folder, and with the folders of the earlier stages that it names."""
    follows = number > 1 and not stage.method.teachers()
    start = stage.init_from or (Path(f"stage-{number - 1}") if follows else None)
    earlier = {f"stage-{each}": str(stage_folder(out, each)) for each in range(1, number)}
    return dataclasses.replace(
        stage,
        out=stage_folder(out, number),
        init_from=None if start is None else Path(earlier.get(str(start), start)),
        resume="no" if stage.resume == "no" else "if-any",
        method=name_folders(stage.method, earlier),
    )


def name_folders(method: Any, folders: dict[str, str]) -> Any:
    """Return a method's settings with the names of stages replaced by their folders."""
    fields = {each.name: getattr(method, each.name) for each in dataclasses.fields(method)}
    named = {name: folders[value] for name, value in fields.items() if isinstance(value, str) and value in folders}
    return dataclasses.replace(method, **named)


def is_finished(settings: Pretrain) -> bool:
    """Return whether a stage has taken all its steps, also if it is given more now, and exported its encoder."""
    if not (settings.out / "export" / "config.json").is_file():
        return False
    newest = next(iter(list_checkpoints(settings.out / "checkpoints")), None)
    steps = max(settings.steps, load_config(settings.out).steps)
    return newest is not None and int(newest.name.removeprefix("step-")) >= steps


def load_stages(out: Path) -> Stages:
    """Load the stages that `run_stages` wrote to a folder. Raises UserError if their file is damaged."""
    file = out / STAGES_FILE
    try:
        return Stages(tuple(from_json(each) for each in read_json(file)["stages"]))
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} cannot be read ({error}): name the recipe again, jepa pretrain RECIPE --resume"
        ) from error
