"""Several data sets in one run: every step takes its batch from one of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from openjepa.data.loader import Step, Steps


class StreamSteps(torch.utils.data.Dataset):
    """The steps of several streams, each a `Steps` with its own data, batch size and masks.

    `choices` says which stream every step takes its batch from. Item i is a function of (seed, i), as in `Steps`, so a
    run can start at any step. `Batch.stream` is the number of the stream.
    """

    def __init__(self, streams: Sequence[Steps], choices: np.ndarray):
        self.streams, self.choices = streams, choices
        taken_before = np.stack([np.cumsum(choices == number) for number in range(len(streams))])
        self.position = taken_before[choices, np.arange(len(choices))] - 1  # of each step within its stream

    def __len__(self) -> int:
        return len(self.choices)

    def __getitem__(self, step: int) -> Step:
        stream = int(self.choices[step])
        item = self.streams[stream][int(self.position[step])]
        return item._replace(step=step, batch=item.batch._replace(stream=stream))


def choose_streams(weights: Sequence[float], first_steps: Sequence[int], total: int) -> np.ndarray:
    """Return which stream each of `total` steps takes its batch from, in proportion to the weights of those that began.

    Equal weights alternate strictly. A stream takes part from its first step on. The choice for a step does not depend
    on `total`, so a longer run begins in the same way.
    """
    share, begin = np.asarray(weights, np.float64), np.asarray(first_steps)
    credit, choices = np.zeros(len(share)), np.empty(total, np.int8)
    for step in range(total):
        active = np.where(begin <= step, share, 0.0)
        credit += active / active.sum()
        choices[step] = np.where(active > 0, credit, -np.inf).argmax()
        credit[choices[step]] -= 1
    return choices
