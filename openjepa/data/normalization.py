"""Measure the mean and standard deviation of each channel."""

from __future__ import annotations

import torch

from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset


def measure_mean_std(data: Dataset, most: int = 4096) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel in [0, 1], over the evaluation views of up to `most` pictures."""
    index = torch.linspace(0, len(data) - 1, min(most, len(data))).long()
    total, square, pixels = 0.0, 0.0, 0
    for part in index.split(64):
        read = data.read(part, None)
        view = (
            read.views[0].double()[[*map(bool, read.label >= 0)]] / 255
            if read.skipped
            else read.views[0].double() / 255
        )
        total, square = total + view.sum((0, 2, 3)), square + view.square().sum((0, 2, 3))
        pixels += view.shape[0] * view.shape[2] * view.shape[3]
    if not pixels:
        raise UserError("none of the images looked at could be decoded: run file on one of them to see what it is")
    mean = total / pixels
    std = (square / pixels - mean**2).clamp(min=1e-8).sqrt()
    return tuple(round(value, 5) for value in mean.tolist()), tuple(round(value, 5) for value in std.tolist())
