"""Command `jepa probe`: measure an encoder on a labeled folder, next to baselines."""

from __future__ import annotations

import dataclasses

from openjepa.cli.settings import Probe
from openjepa.core.types import Score
from openjepa.evaluation.result_files import results_folder
from openjepa.interop.adapters import load_any
from openjepa.viz.scores import measure_and_publish


def probe(settings: Probe) -> list[Score]:
    """Measure an encoder and its baselines; print the scores and write them to RUN/probes."""
    encoder = dataclasses.replace(load_any(settings.run, settings.encoder), name="this encoder")
    compared = [encoder]
    if settings.baselines and encoder.untrained:
        compared.append(encoder.untrained())
    out = settings.out or results_folder(settings.run, "probes")
    return measure_and_publish(compared, settings, out, pixels=settings.baselines)
