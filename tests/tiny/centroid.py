"""A probe: the nearest class mean of pooled features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from openjepa.core.types import Score
from openjepa.evaluation.evaluator import Prediction, ProbeInput, SplitFeatures, classification_score


@dataclass(frozen=True)
class Centroid:
    """Classify by the nearest mean of a class."""

    def run(self, subject: ProbeInput) -> Iterator[Score]:
        """Yield the accuracy on held-out data."""

        def predict(part: SplitFeatures) -> Prediction:
            x, y = part.train["last"], part.train.y
            means = torch.stack([x[y == each].mean(0) for each in range(subject.classes)])
            return Prediction(torch.cdist(part.test["last"], means).argmin(1), {})

        return classification_score(subject, "centroid", predict)
