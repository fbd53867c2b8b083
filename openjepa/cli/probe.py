"""Command `jepa probe`: measure an encoder on a labeled folder, beside baselines."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from openjepa.core.arguments import Run
from openjepa.evaluation.probing import ProbeSettings
from openjepa.evaluation.scores import Score
from openjepa.interop.adapters import load_adapter
from openjepa.viz.scores import measure_and_publish


@dataclass(frozen=True, kw_only=True)
class Probe(ProbeSettings):
    """Measures an encoder on a labelled folder."""

    run: Run  # a run, an export, a Hugging Face folder, hf:ID, or module:function
    baselines: bool = True  # also the encoder before training, and raw pixels
    out: Path | None = None  # folder of the results; by default probes/ in the run's folder


def probe(settings: Probe) -> list[Score]:
    """Accuracies of the encoder and of its baselines; printed, and written with a confusion matrix to RUN/probes."""
    this = dataclasses.replace(load_adapter(settings.run, settings.encoder), name="this encoder")
    compared = [this]
    if settings.baselines and this.untrained:
        compared.append(this.untrained())
    folder = Path(settings.run)
    out = settings.out or (folder / "probes" if folder.is_dir() else Path("probes"))
    return measure_and_publish(compared, settings, out, pixels=settings.baselines)
