"""Command `jepa collect`: act in an environment and save the episodes."""

from __future__ import annotations

import shlex
from functools import partial
from typing import Any

from rich.progress import track

from openjepa.core.console import console, info
from openjepa.planning.collect import collect_episodes
from openjepa.planning.settings import Collect


def collect(settings: Collect) -> dict[str, Any]:
    """Collect the episodes, print how many and what to type next; return that as a dictionary.

    Raises UserError if the folder is not empty, or if there is no such environment.
    """
    progress = partial(track, description="collecting", console=console, disable=not console.is_terminal)
    collected = collect_episodes(settings, progress)
    rewarded = "" if collected.mean_return is None else f", mean return {collected.mean_return:.1f}"
    info(f"collected  {collected.episodes:,} episodes, {collected.steps:,} steps{rewarded}")
    folder = shlex.quote(str(settings.out))
    run = shlex.quote(f"runs/{settings.out.name}")
    info(f"next       jepa pretrain --modality trajectory --data.root {folder} --out {run}")
    return {"folder": str(settings.out), **collected._asdict()}
