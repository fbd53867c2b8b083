"""Command `jepa report`: write the report of one run or several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openjepa.core.arguments import Runs
from openjepa.viz.report import write_report


@dataclass(frozen=True, kw_only=True)
class Report:
    """Writes one page on a run: what was learnt from what, curves, probes, pictures, speed, warnings, settings. No network."""

    runs: Runs
    out: Path | None = None  # a .html; by default RUN/report.html, of several runs report.html here
    pictures: bool = True  # draw masks, features, predictions, neighbours and the spectrum, from the run's own data


def report(settings: Report) -> Path:
    """Write the page and return its path."""
    return write_report(settings.runs, settings.out, settings.pictures)
