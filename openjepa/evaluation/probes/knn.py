"""The k-nearest-neighbor probe.   S samples  R queries  D width  K classes"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.options import PooledKind
from openjepa.core.types import Score
from openjepa.evaluation.evaluator import (
    Prediction,
    ProbeInput,
    SplitFeatures,
    classification_score,
    metric_name,
)


def knn_predict(
    train: Float[Tensor, "S D"],
    label: Int[Tensor, "S"],
    query: Float[Tensor, "R D"],
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Int[Tensor, "R"]:
    """Predict the class with the largest vote of the k nearest neighbors by cosine.

    Each neighbor votes with weight exp(cosine / temperature). Source: Wu et al. (2018), the weighting and temperature
    that most published kNN figures use.
    """
    predictions = []
    for cosine, nearest in nearest_by_cosine(train, query, k):
        votes = torch.zeros(len(cosine), classes, device=cosine.device)
        votes.scatter_add_(1, label[nearest], (cosine / temperature).exp())
        predictions.append(votes.argmax(1))
    return torch.cat(predictions)


def nearest_by_cosine(
    rows: Float[Tensor, "S D"], query: Float[Tensor, "R D"], k: int
) -> Iterator[tuple[Float[Tensor, "r k"], Int[Tensor, "r k"]]]:
    """Yield cosines and indices of the k nearest rows, 1,024 queries at a time."""
    rows, query = F.normalize(rows, dim=1), F.normalize(query, dim=1)
    for part in query.split(1024):
        cosine, nearest = (part @ rows.T).topk(min(k, len(rows)), dim=1)
        yield cosine, nearest


@dataclass(frozen=True)
class KNN:
    """Measure the accuracy of the nearest neighbors' vote; nothing is trained."""

    features: PooledKind = "last"
    k: int = 20
    temperature: float = 0.07

    def run(self, subject: ProbeInput) -> Iterator[Score]:
        """Yield the accuracy."""
        kind = subject.features.kind(self.features)

        def predict(part: SplitFeatures) -> Prediction:
            train, test = part.train, part.test
            predicted = knn_predict(train[kind], train.y, test[kind], subject.classes, self.k, self.temperature)
            return Prediction(predicted, {"k": self.k, "temperature": self.temperature, "kind": kind})

        return classification_score(subject, metric_name("kNN", kind), predict)
