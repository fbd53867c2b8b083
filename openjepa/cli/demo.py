"""Command `jepa demo`: generate data, train an encoder on it and measure it; one file per demo in cli/demos/.

A demo is a function of its file's name, from settings to scores; `DEFAULTS` in that file has its own sizes.
"""

from __future__ import annotations

import dataclasses
import json
import sys

from openjepa.cli.settings import Demo
from openjepa.core import registry
from openjepa.core.console import info
from openjepa.core.types import Score
from openjepa.evaluation.scores import describe_scores, print_scores, write_scores


def demo(settings: Demo) -> list[Score]:
    """Run a demo, print its scores next to baselines, and write them to demo.json in the folder `out`."""
    run = registry.find("demo", settings.name)
    settings = settings.with_defaults(sys.modules[run.__module__].DEFAULTS)
    scores = run(settings)
    print_scores(scores, f"{describe_scores(scores)} (95 % interval)")
    about = {"demo": settings.name, "settings": json.loads(json.dumps(dataclasses.asdict(settings), default=str))}
    info(f"written    {write_scores(settings.out / 'demo.json', scores, about)}")
    return scores
