"""The linear probe: L2-regularised logistic regression by L-BFGS.   S samples  D width  K classes"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # λ, from strong to weak
VALIDATION = 0.1  # share of the training data that chooses among them


class Linear(NamedTuple):
    """A classifier of standardised features."""

    weight: Float[Tensor, "K D"]
    bias: Float[Tensor, "K"]
    mean: Float[Tensor, "D"]
    std: Float[Tensor, "D"]

    def predict(self, features: Float[Tensor, "S D"]) -> Int[Tensor, "S"]:
        return ((features - self.mean) / self.std @ self.weight.T + self.bias).argmax(1)


def fit(
    features: Float[Tensor, "S D"], label: Int[Tensor, "S"], classes: int, strength: float, start: Linear | None = None
) -> Linear:
    """Minimises mean cross-entropy + strength/2 · ‖weight‖², features standardised by their own mean and deviation.

    The problem is convex: the answer does not depend on the start, which only saves time. The bias is not penalised.
    """
    mean, std = features.mean(0), features.std(0).clamp(min=1e-6)
    x = (features - mean) / std
    weight = (start.weight.clone() if start else x.new_zeros(classes, x.shape[1])).requires_grad_()
    bias = (start.bias.clone() if start else x.new_zeros(classes)).requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=200, history_size=10, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, label) + strength / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)  # type: ignore[arg-type]
    return Linear(weight.detach(), bias.detach(), mean, std)


class Outcome(NamedTuple):
    """The strength that was chosen, and what it says of the test data."""

    strength: float
    validation: float  # accuracy that chose it
    predicted: Int[Tensor, "R"]


def probe(
    features: Float[Tensor, "S D"], label: Int[Tensor, "S"], test: Float[Tensor, "R D"], classes: int, seed: int = 0
) -> Outcome:
    """Classes of the test data; the strength is chosen on a tenth of the training data, then all of it is used."""
    shuffled = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    held, kept = shuffled[: max(1, int(len(label) * VALIDATION))], shuffled[max(1, int(len(label) * VALIDATION)) :]
    scores, model = [], None
    for strength in STRENGTHS:
        model = fit(features[kept], label[kept], classes, strength, model)
        scores.append(accuracy(model.predict(features[held]), label[held]))
    best = STRENGTHS[scores.index(max(scores))]
    return Outcome(best, max(scores), fit(features, label, classes, best, model).predict(test))


def accuracy(predicted: Int[Tensor, "S"], label: Int[Tensor, "S"]) -> float:
    return (predicted == label).float().mean().item()
