"""The part of `jepa plan` that measures returns in environments of gymnasium."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from openjepa.core.console import info
from openjepa.core.fileio import write_text
from openjepa.core.tables import print_table
from openjepa.planning.configurator import AgentSettings
from openjepa.planning.gym_system import load_gym_system
from openjepa.planning.remote import RemoteRow
from openjepa.planning.returns import ReturnRow, run_planning, run_references
from openjepa.planning.settings import PLANNING, Plan
from openjepa.planning.success import Row


def plan_returns(settings: Plan) -> list[ReturnRow]:
    """Run the agent, random actions and the known controller on the same episodes; print and write their returns."""
    settings.refuse_unused((*PLANNING, "goal"), "in an environment of gymnasium")
    assert settings.env is not None
    before = time.perf_counter()
    system = load_gym_system(settings.run, settings.env, settings.goal, settings.critic, settings.seed)
    judge = "critic" if settings.critic else "cost"
    info(f"{judge:<10} learned from recorded episodes in {time.perf_counter() - before:.0f} s")
    seeds = range(settings.seed, settings.seed + settings.episodes)
    rows = run_references(system.env, seeds)
    chosen = AgentSettings(
        "2", settings.planner, settings.horizon, settings.replan, settings.samples, settings.iterations
    )
    rows.append(run_planning(f"mode 2, {settings.planner}", system, seeds, chosen, settings.seed))
    episodes = f"{settings.episodes} episodes, seeds {seeds[0]} to {seeds[-1]}"
    print_returns(rows, f"{settings.env}, {episodes}{settings.describe_goal()}")
    write_rows(settings.out or system.folder / "plan.json", settings.env, settings.seed, rows)
    return rows


def write_rows(out: Path, env: str, seed: int, rows: Sequence[Row | ReturnRow | RemoteRow]) -> None:
    """Write what was measured as JSON."""
    write_text(out, json.dumps({"env": env, "seed": seed, "rows": [row._asdict() for row in rows]}, indent=1))
    info(f"written    {out}")


def print_returns(rows: list[ReturnRow], title: str) -> None:
    """Print mean returns with their intervals, and what acting costs."""
    head = ("way to act", "mean return", "95 % interval", "mean steps", "ms / step", "imagined / step")
    cells = []
    for row in rows:
        costs = ("" if cost is None else f"{cost:.3g}" for cost in (row.ms_per_step, row.imagined_steps))
        interval = f"{row.low:.1f} to {row.high:.1f}"
        cells.append((row.name, f"{row.mean_return:.1f}", interval, f"{row.mean_steps:.0f}", *costs))
    print_table(head, cells, title)
