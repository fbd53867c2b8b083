"""Command `jepa diagnose`: find out which module of an agent fails."""

from __future__ import annotations

import json

import torch

from openjepa.cli.plan import print_rows
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.fileio import write_text
from openjepa.core.tables import print_table
from openjepa.methods.critic import ValuedWorld
from openjepa.planning.comparison import replace_modules
from openjepa.planning.diagnosis import Diagnosis, diagnose_world
from openjepa.planning.envs.rooms import draw_tasks
from openjepa.planning.settings import Diagnose
from openjepa.planning.success import Row
from openjepa.planning.systems import load_room_system, require_one_level
from openjepa.planning.value_quality import ValueQuality, measure_values

MAX_POROSITY, LEAST_SUCCESS = 0.01, 0.97  # what an agent needs before its planner is tuned


def diagnose(settings: Diagnose) -> Diagnosis:
    """Measure the world, then the agent with modules replaced by exact ones; print tables, write a JSON file."""
    system = load_room_system(settings.run, settings.env)
    require_one_level(system, settings.run)
    if system.env == "winding":
        raise UserError("probes of walls and doors are for two and four rooms: winding corridors are not diagnosed")
    with torch.no_grad():
        diagnosis, decoder = diagnose_world(system.world, system.modality, system.env)
    world, values = system.world, None
    if isinstance(world, ValuedWorld):
        values = measure_values(world, system.modality, system.env)
    print_diagnosis(diagnosis, values, system.env)
    rows = replace_modules(system, draw_tasks(system.env, settings.episodes, settings.seed), decoder, settings.seed)
    print_rows(rows, f"{system.env}, {settings.episodes} tasks, with exact modules")
    for line in verdict(diagnosis, rows):
        info(line)
    out = settings.out or system.folder / "diagnosis.json"
    content = {"env": system.env, "world": diagnosis._asdict(), "values": values and values._asdict()}
    content["rows"] = [row._asdict() for row in rows]
    write_text(out, json.dumps(content, indent=1))
    info(f"written    {out}")
    return diagnosis


def print_diagnosis(diagnosis: Diagnosis, values: ValueQuality | None, env: str) -> None:
    """Print the errors of probes, of imagined positions and of values, and the porosity of walls."""
    rows = [
        (f"{name} by a probe: linear, nonlinear", f"{diagnosis.linear[name]:.2f}, {diagnosis.nonlinear[name]:.2f} px")
        for name in diagnosis.linear
    ]
    if diagnosis.summary is not None:
        rows.append(("position by the locator's summary", f"{diagnosis.summary:.2f} px"))
    rows += [
        (f"imagined position, {steps} steps ahead", f"{error:.2f} px") for steps, error in diagnosis.imagined.items()
    ]
    rows.append((f"porosity: {diagnosis.pushes} pushes into walls", f"{100 * diagnosis.porosity:.1f} %"))
    if values is not None:
        rows.append(("values and the shortest ways: rank correlation", f"{values.rank_correlation:.3f}"))
        rows.append(("values: mean error, bias", f"{values.error:.2f}, {values.bias:.2f} steps"))
    print_table(("measured on held-out layouts", "error"), rows, f"world model of {env}")


def verdict(diagnosis: Diagnosis, rows: list[Row]) -> list[str]:
    """Return a line for each module that fails, with what to do, or one that says that all hold."""
    lines = []
    if diagnosis.porosity > MAX_POROSITY:
        lines.append(f"world      walls are porous: more than {MAX_POROSITY:.0%} of pushes pass; train stage 1 longer")
    success = {row.name: row.success for row in rows}
    if success.get("exact dynamics, critic", 1.0) < LEAST_SUCCESS:
        lines.append(f"critic     fails with exact dynamics: less than {LEAST_SUCCESS:.0%}; train it longer")
    if success["learned dynamics, exact values"] < LEAST_SUCCESS:
        lines.append(f"dynamics   fail with exact values: less than {LEAST_SUCCESS:.0%}; train stage 1 longer")
    if success["exact dynamics, exact values"] < LEAST_SUCCESS:
        lines.append("planner    fails with exact modules: give it more samples, iterations or a longer horizon")
    return lines or ["verdict    all modules hold: a planner can be tuned now"]
