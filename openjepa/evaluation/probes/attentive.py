"""The attentive probe: a learned query pools the patch tokens of a frozen encoder, then a linear layer classifies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from openjepa.core.types import Score
from openjepa.evaluation.evaluator import (
    Prediction,
    ProbeInput,
    SplitFeatures,
    classification_score,
    metric_name,
)
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.probes.finetune import warmup_cosine
from openjepa.evaluation.probes.split import validation_split
from openjepa.evaluation.stored_tokens import StoredTokens, store_tokens
from openjepa.nn.init import initialize
from openjepa.nn.pooling import AttentivePool

EPOCHS, BATCH_SIZE = 20, 256


class SweepPoint(NamedTuple):
    """One point of the hyperparameter sweep."""

    lr: float
    weight_decay: float


# a subset of the range that V-JEPA 2 sweeps
SWEEP = tuple(SweepPoint(lr, decay) for lr in (1e-3, 3e-4, 1e-4) for decay in (0.01, 0.4))


class AttentiveResult(NamedTuple):
    """The selected sweep point and its predictions on the test data."""

    head: SweepPoint
    validation: float  # validation accuracy by which it was selected
    predicted: Int[Tensor, "Q"]


class AttentiveClassifier(nn.Module):
    """Attentive pooling and a linear layer."""

    def __init__(self, dim: int, num_heads: int, classes: int, seed: int):
        super().__init__()
        self.pool = AttentivePool(dim, num_heads)
        self.linear = nn.Linear(dim, classes)
        initialize(self, torch.Generator().manual_seed(seed))

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B K"]:
        return self.linear(self.pool(tokens))


def attentive_probe(
    train: DatasetEncoder,
    test: DatasetEncoder,
    labeled: tuple[Int[Tensor, "R"], Int[Tensor, "R"]],
    test_index: Int[Tensor, "Q"],
    classes: int,
    sweep: tuple[SweepPoint, ...] = SWEEP,
    epochs: int | None = None,
    seed: int = 0,
    augment: bool = False,
) -> AttentiveResult:
    """Select the best point of the sweep on 10 % of the training data, retrain it on all of it, and predict.

    `labeled` holds indices of training samples and their labels, `test_index` indices of test samples. All heads of the
    sweep train on the same tokens, which are computed once if they fit into memory.
    """
    index, label = labeled
    tokens = train if augment else store_tokens(train, index)
    shuffled, validation, training = validation_split(len(label), seed)

    def fit(points: tuple[SweepPoint, ...], rows: Tensor) -> list[AttentiveClassifier]:
        return fit_classifiers(tokens, index[rows], label[rows], classes, points, epochs or EPOCHS, seed, augment)

    answers = predict_classes(tokens, index[validation], fit(sweep, training))
    scores = [float((answer == label[validation]).float().mean()) for answer in answers]
    best = scores.index(max(scores))
    (predicted,) = predict_classes(test, test_index, fit((sweep[best],), shuffled))
    return AttentiveResult(sweep[best], scores[best], predicted)


def fit_classifiers(
    data: DatasetEncoder | StoredTokens,
    index: Int[Tensor, "R"],
    label: Int[Tensor, "R"],
    classes: int,
    points: tuple[SweepPoint, ...],
    epochs: int,
    seed: int,
    augment: bool,
) -> list[AttentiveClassifier]:
    """Train one classifier per sweep point with AdamW and a cosine schedule to 0."""
    dim, device = data.encode(index[:1]).patches.shape[-1], data.device
    num_heads = max(1, dim // 64) if dim % 64 == 0 else 1
    models = [AttentiveClassifier(dim, num_heads, classes, seed).to(device.device) for _ in points]
    optimizers = [
        torch.optim.AdamW(model.parameters(), lr=point.lr, weight_decay=point.weight_decay)
        for model, point in zip(models, points, strict=True)
    ]
    total, step = epochs * math.ceil(len(index) / BATCH_SIZE), 0
    batches_of = data.epochs(index, BATCH_SIZE, seed, augment)
    for epoch in range(epochs):
        for features, rows in batches_of(epoch):
            truth = label[rows].to(device.device)
            for model, optimizer, point in zip(models, optimizers, points, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = point.lr * warmup_cosine(step, total, 0.0)
                optimizer.zero_grad(set_to_none=True)
                with torch.enable_grad(), device.autocast():
                    loss = F.cross_entropy(model(features.patches).float(), truth)
                loss.backward()
                optimizer.step()
            step += 1
    return models


@torch.no_grad()
def predict_classes(
    data: DatasetEncoder | StoredTokens, index: Int[Tensor, "Q"], models: list[AttentiveClassifier]
) -> Iterator[Int[Tensor, "Q"]]:
    """Predict the classes of some samples with each model; the samples are encoded once."""
    answers: list[list[Tensor]] = [[] for _ in models]
    for rows in index.split(BATCH_SIZE):
        patches = data.encode(rows).patches
        for model, parts in zip(models, answers, strict=True):
            with data.device.autocast():
                parts.append(model(patches).argmax(1).cpu())
    return iter([torch.cat(parts) for parts in answers])


@dataclass(frozen=True)
class Attentive:
    """Measure learned pooling of patch tokens; baselines without tokens are skipped."""

    augment: bool = False  # train on random crops
    seed: int = 0

    def run(self, subject: ProbeInput) -> Iterator[Score]:
        """Yield the accuracy of the sweep point that validation selected."""
        if subject.features.views is None:
            return

        def predict(part: SplitFeatures) -> Prediction:
            assert part.views
            (train, test, *_), label = part, part.train.y
            result = attentive_probe(
                *part.views, (train.labeled, label), test.labeled, subject.classes, seed=self.seed, augment=self.augment
            )
            return Prediction(result.predicted, {**result.head._asdict(), "validation": result.validation})

        yield from classification_score(subject, metric_name("attentive", "crops" if self.augment else ""), predict)
