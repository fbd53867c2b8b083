"""Measure the mean and standard deviation of each channel."""

from __future__ import annotations

import torch

from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset


def measure_mean_std(
    data: Dataset, max_samples: int = 4096, batch_size: int = 64
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure the mean and standard deviation of each channel in [0, 1].

    Reads the evaluation views of up to `max_samples` evenly spaced images or clips.

    Raises:
        UserError: no sample could be decoded.
    """
    index = torch.linspace(0, len(data) - 1, min(max_samples, len(data))).long()
    total, square, pixels, first = 0.0, 0.0, 0, None
    for part in index.split(batch_size):
        samples = data.read(part, None)
        view = samples.views[0].double()
        if samples.skipped:  # undecodable samples have label -1
            first = first or samples.skipped[0]
            view = view[[*map(bool, samples.label >= 0)]]
        view = (view.flatten(0, 1) if view.ndim == 5 else view) / 255  # the frames of clips are images
        total, square = total + view.sum((0, 2, 3)), square + view.square().sum((0, 2, 3))
        pixels += view.shape[0] * view.shape[2] * view.shape[3]
    if not pixels:
        example = f", the first is {first.path} ({first.reason})" if first else ""
        raise UserError(
            f"none of {len(index)} sampled files can be decoded{example}: run jepa doctor on the folder to see all"
        )
    mean = total / pixels
    std = (square / pixels - mean**2).clamp(min=1e-8).sqrt()
    return tuple(round(value, 5) for value in mean.tolist()), tuple(round(value, 5) for value in std.tolist())
