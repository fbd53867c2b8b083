"""The logistic probe: L2-regularized logistic regression by L-BFGS.   S samples  D width  K classes"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

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
from openjepa.evaluation.probes.split import validation_folds

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)  # L2 regularization λ, from strong to weak

PATIENCE = 2  # stop after this many strengths in a row below the best: weaker ones only fit noise, and slowly

CHUNK_ROWS = 4096  # rows per chunk of the second moment


class LinearClassifier(NamedTuple):
    """A linear classifier of standardized features."""

    weight: Float[Tensor, "K D"]
    bias: Float[Tensor, "K"]
    mean: Float[Tensor, "D"]
    std: Float[Tensor, "D"]

    def predict(self, features: Float[Tensor, "S D"]) -> Int[Tensor, "S"]:
        return ((features - self.mean) / self.std @ self.weight.T + self.bias).argmax(1)


class Problem(NamedTuple):
    """The convex problem: mean cross-entropy + strength/2 · ‖weight‖² on standardized features.

    Features are standardized by their own mean and standard deviation. The optimal weights lie in the span of the
    samples, so with fewer samples than features the problem is solved in that span, of dimension R.
    """

    x: Float[Tensor, "S R"]  # standardized features; coordinates along `span` if it is set
    label: Int[Tensor, "S"]
    classes: int
    mean: Float[Tensor, "D"]
    std: Float[Tensor, "D"]
    moment: Float[Tensor, "R R"]  # mean of x xᵀ, in fp64
    span: Float[Tensor, "D R"] | None  # orthonormal basis of the samples' span; None = all features

    @classmethod
    def of(cls, features: Float[Tensor, "S D"], label: Int[Tensor, "S"], classes: int) -> Problem:
        """Standardize the features and compute their second moment."""
        mean, std = features.mean(0), features.std(0).clamp(min=1e-6)
        x, span = (features - mean) / std, None
        if len(x) < x.shape[1]:
            span, rows = torch.linalg.qr(x.T)
            x = rows.T.contiguous()
        moment = x.new_zeros(x.shape[1], x.shape[1], dtype=torch.float64)
        for part in x.split(CHUNK_ROWS):
            moment += part.double().T @ part.double()
        return cls(x, label, classes, mean, std, moment / len(x), span)

    def solve(self, strength: float, start: LinearClassifier | None = None) -> LinearClassifier:
        """Find the minimum by L-BFGS; `start` only saves time, the bias is not penalized.

        L-BFGS runs in preconditioned coordinates, where the loss has about the same curvature in all directions.
        Neural features vary a thousand times more along some directions than along others; without preconditioning the
        solver stops before it uses the low-variance ones. That hurts an untrained encoder most, and so flatters a
        trained one (studies/log.md).
        """
        curvature = self.moment / self.classes + strength * torch.eye(len(self.moment)).to(self.moment)
        scale = torch.linalg.cholesky(curvature, upper=True).float()

        def unscale(scaled: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
            return torch.linalg.solve_triangular(scale, scaled.T, upper=True).T

        initial = start and (start.weight if self.span is None else start.weight @ self.span)
        scaled = initial @ scale.T if initial is not None else self.x.new_zeros(self.classes, self.x.shape[1])
        bias = start.bias.clone() if start else self.x.new_zeros(self.classes)
        parameters = [scaled.requires_grad_(), bias.requires_grad_()]
        solver = torch.optim.LBFGS(
            parameters, max_iter=200, tolerance_grad=1e-8, tolerance_change=0.0, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            solver.zero_grad()
            weight = unscale(scaled)
            loss = F.cross_entropy(self.x @ weight.T + bias, self.label) + strength / 2 * weight.square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            solver.step(closure)  # type: ignore[arg-type]
        weight = unscale(scaled.detach())
        return LinearClassifier(
            weight if self.span is None else weight @ self.span.T, bias.detach(), self.mean, self.std
        )


def fit_logistic(
    features: Float[Tensor, "S D"], label: Int[Tensor, "S"], classes: int, strength: float
) -> LinearClassifier:
    """Fit the classifier of one regularization strength."""
    return Problem.of(features, label, classes).solve(strength)


class LogisticResult(NamedTuple):
    """The selected strength and its predictions on the test data."""

    strength: float
    validation: float  # validation accuracy by which it was selected
    predicted: Int[Tensor, "R"]
    model: LinearClassifier  # trained with this strength on all training data


def logistic_probe(
    features: Float[Tensor, "S D"],
    label: Int[Tensor, "S"],
    test: Float[Tensor, "R D"],
    classes: int,
    seed: int = 0,
    groups: Int[Tensor, "S"] | None = None,
) -> LogisticResult:
    """Select the strength on held-out training data, retrain on all of it, and predict the test data.

    Held out is a random tenth or, with groups, one fold of whole groups after the other.
    """
    folds = validation_folds(len(label), seed, groups)
    problems = [Problem.of(features[training], label[training], classes) for training, _ in folds]
    models: list[LinearClassifier | None] = [None] * len(folds)
    scores = []
    for strength in STRENGTHS:
        models = [problem.solve(strength, model) for problem, model in zip(problems, models, strict=True)]
        correct = [
            accuracy(model.predict(features[validation]), label[validation])
            for model, (_, validation) in zip(models, folds, strict=True)
            if model
        ]
        scores.append(sum(correct) / len(correct))
        if max(scores[-PATIENCE:]) < max(scores):
            break
    best = STRENGTHS[scores.index(max(scores))]
    model = fit_logistic(features, label, classes, best)
    return LogisticResult(best, max(scores), model.predict(test), model)


def accuracy(predicted: Int[Tensor, "S"], label: Int[Tensor, "S"]) -> float:
    """Return the fraction of correct predictions."""
    return (predicted == label).float().mean().item()


@dataclass(frozen=True)
class Logistic:
    """Measure the accuracy of logistic regression on pooled features."""

    features: PooledKind = "last"
    seed: int = 0  # of the validation split on which the strength is selected

    def run(self, subject: ProbeInput) -> Iterator[Score]:
        """Yield the accuracy of the strength that validation selected; record the classifier of the last layer."""
        kind = subject.features.kind(self.features)

        def predict(part: SplitFeatures) -> Prediction:
            train, label = part.train, part.train.y
            result = logistic_probe(train[kind], label, part.test[kind], subject.classes, self.seed, part.groups)
            chosen = {"strength": result.strength, "validation": result.validation, "labels": len(label), "kind": kind}
            return Prediction(result.predicted, chosen, result.model if kind == "last" else None)

        return classification_score(subject, metric_name("logistic", kind), predict)
