"""Command `jepa compare`: measure several encoders in one table."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from openjepa.cli.settings import Compare
from openjepa.core.errors import UserError
from openjepa.core.names import distinct_labels
from openjepa.core.types import Score
from openjepa.interop.adapters import load_any
from openjepa.viz.scores import measure_and_publish


def compare(settings: Compare) -> list[Score]:
    """Measure several encoders and raw pixels; print the scores in one table and write it."""
    if not settings.runs:
        raise UserError(
            "nothing to compare: give runs, exports, Hugging Face folders, hf:REPOSITORY or module:function"
        )
    names = [os.path.normpath(run) if Path(run).exists() else run for run in settings.runs]
    if len(set(distinct_labels(names))) < len(names):
        raise UserError(f"a run is given twice among {' '.join(settings.runs)}: give each once")
    compared = [
        dataclasses.replace(load_any(run, settings.encoder), name=name)
        for run, name in zip(settings.runs, names, strict=True)
    ]
    return measure_and_publish(compared, settings, settings.out, pixels=True)
