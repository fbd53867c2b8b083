"""Bootstrap intervals.   R samples  Q resampled rows"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

RESAMPLES = 1000


def bootstrap_interval(
    values: Float[Tensor, "R"], seed: int = 0, groups: Int[Tensor, "R"] | None = None
) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `values` by the percentile bootstrap with 1,000 resamples.

    With `groups`, whole groups are resampled, as their samples are not independent.
    """
    return bootstrap_statistic(lambda rows: values[rows].mean(), len(values), seed, groups)


def bootstrap_statistic(
    statistic: Callable[[Int[Tensor, "Q"]], Any], count: int, seed: int = 0, groups: Int[Tensor, "R"] | None = None
) -> tuple[float, float]:
    """Return the 95 % interval of a function of resampled rows: samples or, with `groups`, whole groups of them."""
    generator = torch.Generator().manual_seed(seed)
    members = [torch.where(groups == each)[0] for each in groups.unique()] if groups is not None else []

    def resample() -> Tensor:
        if not members:
            return torch.randint(count, (count,), generator=generator)
        picked = torch.randint(len(members), (len(members),), generator=generator)
        return torch.cat([members[each] for each in picked.tolist()])

    results = torch.stack([torch.as_tensor(statistic(resample())) for _ in range(RESAMPLES)])
    low, high = results.quantile(torch.tensor([0.025, 0.975], dtype=results.dtype)).tolist()
    return low, high
