"""Command `jepa compare`: measure several encoders in one table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from openjepa.core.arguments import Runs
from openjepa.core.errors import UserError
from openjepa.evaluation.probing import ProbeSettings
from openjepa.evaluation.scores import Score
from openjepa.interop.adapters import load_adapter
from openjepa.viz.scores import measure_and_publish


@dataclass(frozen=True, kw_only=True)
class Compare(ProbeSettings):
    """Measures several encoders on one labelled folder, in one table."""

    runs: Runs  # each as for probe
    out: Path = Path("comparison")  # folder of the results


def compare(settings: Compare) -> list[Score]:
    """Accuracies of several encoders in one table, raw pixels beside them; printed and written."""
    if not settings.runs:
        raise UserError("nothing to compare: name runs, Hugging Face folders, hf:ID or module:function")
    compared = [dataclasses.replace(load_adapter(run, settings.encoder), name=run) for run in settings.runs]
    return measure_and_publish(compared, settings, settings.out, pixels=True)
