"""Compute the schedules of a run as pure functions of the step."""

from __future__ import annotations

import math


def learning_rate(step: int, total: int, warmup: int, start: float, peak: float, end: float, hold: int = 0) -> float:
    """Warm up linearly from `start` to `peak`, hold it, then decay by a half cosine to `end`.

    As in the official code, the schedule advances before the first step, which is thus one increment above `start`.
    With `hold` this is warm-up–stable–decay (Hu et al., arXiv 2404.06395), whose decay here is a half cosine.
    """
    n = step + 1
    if n < warmup:
        return start + n / warmup * (peak - start)
    progress = max(0, n - warmup - hold) / max(1, total - warmup - hold)
    return max(end, end + (peak - end) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def weight_decay(step: int, total: int, start: float, end: float, shape: str = "cosine") -> float:
    """Change from `start` to `end` by a half cosine (official code) or linearly (paper)."""
    progress = (step + 1) / total
    if shape == "linear":
        return start + (end - start) * progress
    value = end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return min(end, value) if start <= end else max(end, value)


def ema_momentum(step: int, total: int, start: float, end: float, rampup: float = 0.0) -> float:
    """Rise linearly from `start`; the last step is one increment short of `end` (official code).

    An EMA of momentum m spans 1 / (1 - m) steps. With `rampup` it spans at most this fraction of the steps so far:
    momentum starts at 0 and reaches the linear schedule at step 1 / (rampup · (1 - m)). Not in the paper; TensorFlow's
    EMA does nearly the same if it is given the step: min(m, (1 + n) / (10 + n)).
    """
    line = start + step * (end - start) / total
    return min(line, max(0.0, 1.0 - 1.0 / (rampup * (step + 1)))) if rampup else line
