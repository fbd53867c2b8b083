"""`jepa probe` and `jepa compare`: what simple classifiers make of features, beside honest baselines."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from openjepa.core.arguments import Run, Runs
from openjepa.core.errors import UserError
from openjepa.evaluation.measure import measure_encoders
from openjepa.evaluation.probing import ProbeSettings
from openjepa.evaluation.scores import Score
from openjepa.interop.adapters import load_adapter


@dataclass(frozen=True, kw_only=True)
class Probe(ProbeSettings):
    """Measures an encoder on a labelled folder."""

    run: Run  # a run, an export, a Hugging Face folder, hf:ID, or module:function
    baselines: bool = True  # also the encoder before training, and raw pixels
    out: Path | None = None  # folder of the results; by default probes/ in the run's folder


@dataclass(frozen=True, kw_only=True)
class Compare(ProbeSettings):
    """Measures several encoders on one labelled folder, in one table."""

    runs: Runs  # each as for probe
    out: Path = Path("comparison")  # folder of the results


def probe(settings: Probe) -> list[Score]:
    """Accuracies of the encoder and of its baselines; printed, and written with a confusion matrix to RUN/probes."""
    this = dataclasses.replace(load_adapter(settings.run, settings.which), name="this encoder")
    compared = [this]
    if settings.baselines and this.untrained:
        compared.append(this.untrained())
    folder = Path(settings.run)
    out = settings.out or (folder / "probes" if folder.is_dir() else Path("probes"))
    return measure_encoders(compared, settings, out, pixels=settings.baselines)


def compare(settings: Compare) -> list[Score]:
    """Accuracies of several encoders in one table, raw pixels beside them; printed and written."""
    if not settings.runs:
        raise UserError("nothing to compare: name runs, Hugging Face folders, hf:ID or module:function")
    compared = [dataclasses.replace(load_adapter(run, settings.which), name=run) for run in settings.runs]
    return measure_encoders(compared, settings, settings.out, pixels=True)
