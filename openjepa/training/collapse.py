"""Watch the logged signals for representation collapse."""

from __future__ import annotations

from typing import NamedTuple

ROWS_BEFORE_ALARM = 3  # log rows in a row before the alarm


class Threshold(NamedTuple):
    """A signal, where it lies in a healthy run, below what it is an alarm, and what that means."""

    signal: str
    healthy: str
    alarm: float
    meaning: str
    low: float = 0.0  # of the healthy range
    high: float = float("inf")


THRESHOLDS = (  # figures behind these limits: docs/health.md
    Threshold("target_std", "0.4 to 1", 0.3, "the targets hardly differ from one place to another", 0.4, 1.0),
    Threshold(
        "feature_spread", "0.1 to 1", 0.01, "the encoder gives nearly the same vector for every sample", 0.1, 1.0
    ),
    Threshold("rankme", "more than 10", 2.0, "the features lie on a line or two", 10.0),
)

STANDARDIZE_ADVICE = "--method.standardize, "  # where targets are not

SLOWER_TARGET_ADVICE = "a slower target (--optim.ema-momentum 0.999 --optim.final-ema-momentum 1 --optim.ema-rampup 0) or "  # where there is an averaged one

ADVICE = "try {}a lower --optim.lr; see docs/health.md"


class CollapseAlarm:
    """Watches the rows of the log; speaks once, and does not advise what is done already."""

    def __init__(self, method: object = None) -> None:
        self.advice = (
            SLOWER_TARGET_ADVICE if getattr(method, "standardize", False) else STANDARDIZE_ADVICE + SLOWER_TARGET_ADVICE
        )
        self.below = dict.fromkeys((threshold.signal for threshold in THRESHOLDS), 0)
        self.spoken = False

    def check(self, row: dict[str, float]) -> str | None:
        """A message when a signal has been below its limit for three rows in a row, else None."""
        for threshold in THRESHOLDS:
            low = row.get(threshold.signal, threshold.alarm) < threshold.alarm
            self.below[threshold.signal] = self.below[threshold.signal] + 1 if low else 0
            if self.below[threshold.signal] >= ROWS_BEFORE_ALARM and not self.spoken:
                self.spoken = True
                value = row[threshold.signal]
                return (
                    f"the representation is collapsing: {threshold.meaning} "
                    f"({threshold.signal} {value:.3g}, healthy {threshold.healthy}); "
                    + ADVICE.format(self.advice if "target_std" in row else "")
                )
        return None
