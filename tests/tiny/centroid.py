"""A probe: the nearest class mean of pooled features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from openjepa.core.types import Score
from openjepa.evaluation.evaluator import ProbeInput, classification_score


@dataclass(frozen=True)
class Centroid:
    """Classify by the nearest mean of a class."""

    def run(self, subject: ProbeInput) -> Iterator[Score]:
        """Yield the accuracy on held-out data."""
        raise NotImplementedError
