"""Command `jepa report`: write the report of one run or several."""

from __future__ import annotations

from pathlib import Path

from openjepa.cli.settings import Report
from openjepa.viz.report import write_report


def report(settings: Report) -> Path:
    """Write the report and return its path."""
    return write_report(settings.runs, settings.out, settings.pictures)
