"""Long range: the error of predicted features against how far ahead they lie.

B clips  T hidden time steps  S tokens of a time step  E width
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.core.types import Tokens
from openjepa.evaluation.forecast import Forecast, Forecaster, Scale, read_views

RIDGE = 1e-2  # added to the mean squares of the map's input, which are about 1


class Horizon(NamedTuple):
    """Mean squared errors of each hidden time step, divided by the variance of features over all clips."""

    ahead: list[float]  # how far each hidden time step is from the last visible one
    unit: str  # of that: s, frames of the file, or time steps if clips are spread over files
    predictor: list[float]  # all hidden steps predicted at once
    roll_out: list[float]  # one step after another, each from the predictions before
    persistence: list[float]  # the last visible step stays as it is
    mean: list[float]  # the mean feature of each time step over all clips
    clips: int
    context: int  # visible time steps


class FeatureMap(NamedTuple):
    """A linear map from predicted features to the context encoder's output, to predict from predictions."""

    weight: Float[Tensor, "E D"]
    bias: Float[Tensor, "D"]

    @classmethod
    def fit(cls, x: Float[Tensor, "R E"], y: Float[Tensor, "R D"]) -> FeatureMap:
        """Fit by ridge regression."""
        x, y = x.double(), y.double()
        mean_x, mean_y = x.mean(0), y.mean(0)
        centered = x - mean_x
        moment = centered.T @ centered / len(x) + RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
        weight = torch.linalg.solve(moment, centered.T @ (y - mean_y) / len(x))
        return cls(weight.float(), (mean_y - mean_x @ weight).float())

    def apply(self, x: Float[Tensor, "*B E"]) -> Float[Tensor, "*B D"]:
        return x @ self.weight + self.bias


def measure_horizon(forecaster: Forecaster, data: Dataset, rows: list[int], context: int) -> Horizon:
    """Predict the hidden steps of clips at once and by roll-out, beside persistence and the mean.

    For the roll-out, predictions become context: a linear map, fitted on the visible steps of the same clips, brings
    them to the space of the context encoder's output.
    """
    views = list(read_views(data, rows))
    if not views:
        raise UserError("no clip can be decoded")
    forecasts = [forecaster.forecast(view, context) for view in views]
    scale = forecaster.scale or Scale.of([each.features for each in forecasts])
    back = fit_map(forecasts, scale, context, forecaster)
    direct = torch.cat([each.predicted for each in forecasts])
    rolled = torch.cat([roll_out(forecaster, each, direct.shape[1], back) for each in forecasts])
    if not forecaster.standardizes:
        direct, rolled = scale.apply(direct), scale.apply(rolled)
    truth = torch.cat([scale.apply(each.features[:, context - 1 :]) for each in forecasts])
    last, hidden = truth[:, :1], truth[:, 1:]
    guesses = (direct, rolled, last, hidden.mean(0, keepdim=True))
    predictor, rolling, persistence, mean = ((guess - hidden).square().mean((0, 2, 3)).tolist() for guess in guesses)
    ahead, unit = step_distance(forecaster)
    distances = [ahead * (step + 1) for step in range(hidden.shape[1])]
    return Horizon(distances, unit, predictor, rolling, persistence, mean, len(hidden), context)


def fit_map(forecasts: list[Forecast], scale: Scale, context: int, forecaster: Forecaster) -> FeatureMap:
    """Fit the map from targets, in the units of predictions, to the context encoder's output: on the visible steps."""
    visible = torch.cat([each.features[:, :context].flatten(0, 2) for each in forecasts])
    encoded = torch.cat([each.context.x.float().cpu().flatten(0, 1) for each in forecasts])
    return FeatureMap.fit(scale.apply(visible) if forecaster.standardizes else visible, encoded)


@torch.no_grad()
def roll_out(forecaster: Forecaster, forecast: Forecast, steps: int, back: FeatureMap) -> Float[Tensor, "B T S E"]:
    """Predict one time step after another; every prediction becomes context of the next."""
    known, predictions = forecast.context, []
    step_pos = forecaster.positions(len(known.x)).to(known.pos.device)
    first = step_pos.shape[1] - steps
    for step in range(first, first + steps):
        predictions.append(forecaster.predict(known, step_pos[:, step]))
        features = back.apply(predictions[-1].flatten(1, 2)).to(known.x)
        known = Tokens(torch.cat([known.x, features], 1), torch.cat([known.pos, step_pos[:, step]], 1))
    return torch.cat(predictions, 1)


def step_distance(forecaster: Forecaster) -> tuple[float, str]:
    """Return how far a time step is from the next, and the unit."""
    data = forecaster.data
    if data.fps:
        return data.tubelet / data.fps, "s"
    return (float(data.tubelet * data.stride), "frames") if data.stride else (1.0, "time steps")
