"""The logistic probe: L2-regularized logistic regression by L-BFGS.   S samples  D width  K classes"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)  # λ, from strong to weak

VALIDATION_FRACTION = 0.1  # share of the training data that chooses among them

PATIENCE = 2  # strengths in a row that choose worse than the best: still weaker ones only fit noise, and slowly

CHUNK_ROWS = 4096  # rows whose moment is summed at once


class LinearClassifier(NamedTuple):
    """A classifier of standardised features."""

    weight: Float[Tensor, "K D"]
    bias: Float[Tensor, "K"]
    mean: Float[Tensor, "D"]
    std: Float[Tensor, "D"]

    def predict(self, features: Float[Tensor, "S D"]) -> Int[Tensor, "S"]:
        return ((features - self.mean) / self.std @ self.weight.T + self.bias).argmax(1)


class Problem(NamedTuple):
    """Mean cross-entropy + strength/2 · ‖weight‖² on features standardised by their own mean and deviation; convex.

    The minimum's weights are sums of samples, so of fewer samples than features it is sought in their span, of R numbers.
    """

    x: Float[Tensor, "S R"]  # standardised features, along the axes of `span` where there is one
    label: Int[Tensor, "S"]
    classes: int
    mean: Float[Tensor, "D"]
    std: Float[Tensor, "D"]
    moment: Float[Tensor, "R R"]  # mean of x xᵀ, in fp64
    span: Float[Tensor, "D R"] | None  # orthonormal axes

    @classmethod
    def of(cls, features: Float[Tensor, "S D"], label: Int[Tensor, "S"], classes: int) -> Problem:
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
        """The minimum. It does not depend on the start, which only saves time. The bias is not penalised.

        The weights are sought in coordinates in which the loss curves about alike in all directions: neural features
        vary a thousand times more in some than in others, and in plain coordinates the solver stops before it has used
        the small ones, which is worst for an untrained encoder and so flatters a trained one (docs/log.md).
        """
        curvature = self.moment / self.classes + strength * torch.eye(len(self.moment)).to(self.moment)
        scale = torch.linalg.cholesky(curvature, upper=True).float()

        def weight_of(scaled: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
            return torch.linalg.solve_triangular(scale, scaled.T, upper=True).T

        started = start and (start.weight if self.span is None else start.weight @ self.span)
        scaled = started @ scale.T if started is not None else self.x.new_zeros(self.classes, self.x.shape[1])
        bias = start.bias.clone() if start else self.x.new_zeros(self.classes)
        wanted = [scaled.requires_grad_(), bias.requires_grad_()]
        solver = torch.optim.LBFGS(
            wanted, max_iter=200, tolerance_grad=1e-8, tolerance_change=0.0, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            solver.zero_grad()
            weight = weight_of(scaled)
            loss = F.cross_entropy(self.x @ weight.T + bias, self.label) + strength / 2 * weight.square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            solver.step(closure)  # type: ignore[arg-type]
        weight = weight_of(scaled.detach())
        return LinearClassifier(
            weight if self.span is None else weight @ self.span.T, bias.detach(), self.mean, self.std
        )


def fit_logistic(
    features: Float[Tensor, "S D"], label: Int[Tensor, "S"], classes: int, strength: float
) -> LinearClassifier:
    """The classifier of one strength."""
    return Problem.of(features, label, classes).solve(strength)


class LogisticResult(NamedTuple):
    """The strength that was chosen, and what it says of the test data."""

    strength: float
    validation: float  # accuracy that chose it
    predicted: Int[Tensor, "R"]
    model: LinearClassifier  # trained with it on all the training data


def logistic_probe(
    features: Float[Tensor, "S D"], label: Int[Tensor, "S"], test: Float[Tensor, "R D"], classes: int, seed: int = 0
) -> LogisticResult:
    """Classes of the test data; the strength is chosen on a tenth of the training data, then all of it is used."""
    shuffled = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    held, kept = (
        shuffled[: max(1, int(len(label) * VALIDATION_FRACTION))],
        shuffled[max(1, int(len(label) * VALIDATION_FRACTION)) :],
    )
    problem, scores, model = Problem.of(features[kept], label[kept], classes), [], None
    for strength in STRENGTHS:
        model = problem.solve(strength, model)
        scores.append(accuracy(model.predict(features[held]), label[held]))
        if max(scores[-PATIENCE:]) < max(scores):
            break
    best = STRENGTHS[scores.index(max(scores))]
    model = fit_logistic(features, label, classes, best)
    return LogisticResult(best, max(scores), model.predict(test), model)


def accuracy(predicted: Int[Tensor, "S"], label: Int[Tensor, "S"]) -> float:
    return (predicted == label).float().mean().item()
