"""Bootstrap intervals.   R samples  Q resampled rows  G groups  T resamples"""

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


def bootstrap_sums(
    statistic: Callable[[Float[Tensor, "T K"]], Float[Tensor, "T"]], sums: Float[Tensor, "G K"], seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of a statistic of the total over all groups, such as scenes; whole groups are resampled.

    `statistic` computes it for several totals at a time.
    """
    ones = torch.ones(RESAMPLES, len(sums), dtype=sums.dtype)
    picked = torch.randint(len(sums), ones.shape, generator=torch.Generator().manual_seed(seed))
    counts = torch.zeros_like(ones).scatter_add_(1, picked, ones)
    return percentiles(statistic(counts @ sums))


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

    return percentiles(torch.stack([torch.as_tensor(statistic(resample())) for _ in range(RESAMPLES)]))


def percentiles(results: Float[Tensor, "T"]) -> tuple[float, float]:
    """Return the limits between which 95 % of the results are."""
    low, high = results.quantile(torch.tensor([0.025, 0.975], dtype=results.dtype)).tolist()
    return low, high
