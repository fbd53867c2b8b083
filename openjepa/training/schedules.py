"""Schedules as functions of the step."""

from __future__ import annotations

import math


def learning_rate(step: int, total: int, warmup: int, start: float, peak: float, end: float, hold: int = 0) -> float:
    """Linear from `start` to `peak` at the warmup-th step, there for `hold` steps, then a half cosine to `end` at the last.

    As released: the schedule moves before the first step, so that one is an increment above `start`. Holding the peak is
    warm-up–stable–decay (Hu et al., arXiv 2404.06395), its fall a half cosine.
    """
    n = step + 1
    if n < warmup:
        return start + n / warmup * (peak - start)
    progress = max(0, n - warmup - hold) / max(1, total - warmup - hold)
    return max(end, end + (peak - end) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def weight_decay(step: int, total: int, start: float, end: float, shape: str = "cosine") -> float:
    """From `start` to `end`: by a half cosine as released, or linearly as the paper says."""
    progress = (step + 1) / total
    if shape == "linear":
        return start + (end - start) * progress
    value = end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return min(end, value) if start <= end else max(end, value)


def ema_momentum(step: int, total: int, start: float, end: float, recent: float = 0.0) -> float:
    """Linear; the first update uses `start` itself, and the last falls one increment short of `end`, as released.

    An average of momentum m spans 1 / (1 - m) steps: with `recent`, at most that share of those taken so far, so that the
    momentum begins at 0 and reaches its line at step 1 / (recent · (1 - m)). Not in the paper; TensorFlow's averages do
    nearly the same where they are told the step, min(m, (1 + n) / (10 + n)).
    """
    line = start + step * (end - start) / total
    return min(line, max(0.0, 1.0 - 1.0 / (recent * (step + 1)))) if recent else line
