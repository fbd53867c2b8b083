"""Classify by the nearest class mean: a probe without parameters to choose."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from openjepa.core.options import PooledKind
from openjepa.core.types import Score
from openjepa.evaluation.evaluator import Prediction, ProbeInput, SplitFeatures, classification_score, metric_name


@dataclass(frozen=True)
class NearestCentroid:
    """Fields named like a setting of `jepa probe` take its value: --features last4."""

    features: PooledKind = "last"

    def run(self, subject: ProbeInput) -> Iterator[Score]:
        """Yield the accuracy over the held-out predictions of all folds, with its interval."""
        kind = subject.features.kind(self.features)

        def predict(part: SplitFeatures) -> Prediction:
            train, test = part.train, part.test
            mean, std = train[kind].mean(0), train[kind].std(0).clamp(min=1e-6)
            known, query = (train[kind] - mean) / std, (test[kind] - mean) / std
            centroids = torch.stack([known[train.y == each].mean(0) for each in range(subject.classes)])
            return Prediction(torch.cdist(query, centroids).argmin(1), {"kind": kind})

        return classification_score(subject, metric_name("nearest centroid", kind), predict)
