"""The ridge probe: linear regression of real-valued targets.   S samples  D width  Q queries"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.bootstrap import bootstrap_interval, bootstrap_statistic
from openjepa.core.errors import UserError
from openjepa.core.options import PooledKind
from openjepa.core.types import Score
from openjepa.evaluation.evaluator import ProbeInput, SplitFeatures, merge_chosen, metric_name
from openjepa.evaluation.probes.split import validation_split

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # ridge penalties, relative to a feature's variance


class RidgeModel(NamedTuple):
    """A fitted regression and its strength."""

    predict: Callable[[Float[Tensor, "Q D"]], Float[Tensor, "Q"]]
    strength: float


def fit_ridge(x: Float[Tensor, "S D"], y: Float[Tensor, "S"], seed: int) -> RidgeModel:
    """Fit ridge regression on standardized features, its penalty selected on 10 % of them."""
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    z, offset = ((x - mean) / std).double(), y.double().mean()
    shuffled, validation, training = validation_split(len(z), seed)

    def solve(rows: Tensor, strength: float) -> Tensor:
        return solve_ridge(z[rows], y[rows].double() - offset, strength)

    errors = [
        float((z[validation] @ solve(training, strength) + offset - y[validation]).square().mean())
        for strength in STRENGTHS
    ]
    best = STRENGTHS[errors.index(min(errors))]
    weight = solve(shuffled, best)
    return RidgeModel(lambda q: (((q - mean) / std).double() @ weight + offset).float(), best)


def solve_ridge(z: Float[Tensor, "R D"], y: Float[Tensor, "R"], strength: float) -> Float[Tensor, "D"]:
    """Return (zᵀz/R + strength)⁻¹ zᵀy/R; with fewer samples than features, from the smaller zzᵀ, which is the same."""
    is_wide = len(z) < z.shape[1]
    gram = (z @ z.T if is_wide else z.T @ z) / len(z)
    gram = gram + strength * torch.eye(len(gram), dtype=z.dtype)
    return z.T @ torch.linalg.solve(gram, y) / len(z) if is_wide else torch.linalg.solve(gram, z.T @ y / len(z))


def ridge_regression(x: Float[Tensor, "S D"], y: Float[Tensor, "S"], seed: int) -> Callable[[Tensor], Tensor]:
    """Fit ridge regression and return the function that predicts."""
    return fit_ridge(x, y, seed).predict


def r_squared(predicted: Float[Tensor, "Q"], truth: Float[Tensor, "Q"]) -> float:
    """Return R²: 1 for perfect predictions, 0 for always predicting the mean."""
    return float(1 - (predicted - truth).square().sum() / (truth - truth.mean()).square().sum())


@dataclass(frozen=True)
class Ridge:
    """Measure how much of real-valued targets a linear map of pooled features explains: R² and mean absolute error."""

    features: PooledKind = "last"
    seed: int = 0  # of the validation split on which the strength is selected

    def run(self, subject: ProbeInput) -> Iterator[Score]:
        """Yield R² and the mean absolute error over the held-out predictions of all folds."""
        if subject.features.targets is None:
            raise UserError(f"ridge needs real-valued targets, and {subject.task} has classes: use --probes logistic")
        kind = subject.features.kind(self.features)
        parts = [self.predict(part, kind) for part in subject.parts()]
        predicted, truth = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        chosen, groups = merge_chosen([{"strength": part[2], "kind": kind} for part in parts]), subject.test_groups()
        about, name = (subject.task, subject.name), metric_name("ridge", kind)
        explained = bootstrap_statistic(lambda rows: r_squared(predicted[rows], truth[rows]), len(truth), groups=groups)
        yield Score(*about, name, r_squared(predicted, truth), *explained, "R²", chosen=chosen)
        error = (predicted - truth).abs()
        interval = bootstrap_interval(error, groups=groups)
        yield Score(*about, f"{name} error", float(error.mean()), *interval, subject.target_unit, False, chosen)

    def predict(self, part: SplitFeatures, kind: str) -> tuple[Tensor, Tensor, float]:
        """Return one fold's predictions, its targets, and the selected strength."""
        assert part.targets
        model = fit_ridge(part.train[kind], part.targets[0], self.seed)
        return model.predict(part.test[kind]), part.targets[1], model.strength
