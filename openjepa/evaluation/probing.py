"""Find the evaluators by name and run them on the features of an encoder."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from openjepa.core import registry
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.types import Score
from openjepa.evaluation.evaluator import Evaluator, Evidence, ProbeInput
from openjepa.evaluation.settings import ProbeSettings


class ProbeResult(NamedTuple):
    """A score and, if the evaluator recorded them, the predictions behind it."""

    score: Score
    evidence: Evidence | None


def probe_names() -> list[str]:
    """List the names for --probes."""
    return registry.names("probe")


def create_probes(settings: ProbeSettings) -> dict[str, Evaluator]:
    """Create the requested evaluators. Raises UserError if the list is empty or a name is unknown."""
    if not settings.probes:
        raise UserError("--probes is empty: give at least one, e.g. --probes logistic knn")
    return {name: create_probe(registry.find("probe", name), settings) for name in settings.probes}


def create_probe(cls: type, settings: ProbeSettings) -> Evaluator:
    """Create an evaluator; its fields that are named like a setting take the setting's value."""
    shared = {each.name for each in dataclasses.fields(cls)} & {each.name for each in dataclasses.fields(settings)}
    return cls(**{name: getattr(settings, name) for name in shared})


def run_probes(subject: ProbeInput, probes: dict[str, Evaluator]) -> list[ProbeResult]:
    """Run evaluators on the features of one encoder."""
    results = []
    for name, probe in probes.items():
        info(f"probing    {subject.name}: {name}")
        results += [ProbeResult(score, subject.evidence.get(score.metric)) for score in probe.run(subject)]
    return results
