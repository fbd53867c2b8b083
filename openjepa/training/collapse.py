"""Watch the logged metrics for representation collapse."""

from __future__ import annotations

from typing import NamedTuple

ROWS_BEFORE_ALARM = 3  # consecutive log rows below the threshold


class Threshold(NamedTuple):
    """A metric, its healthy range, the value below which it is an alarm, and what that means."""

    signal: str  # name of the metric
    healthy: str
    alarm: float
    meaning: str
    low: float = 0.0  # of the healthy range
    high: float = float("inf")


THRESHOLDS = (  # docs/health.md has the measurements behind these values
    Threshold("target_std", "0.4 to 1", 0.3, "targets hardly differ between positions", 0.4, 1.0),
    Threshold(
        "feature_spread", "0.1 to 1", 0.01, "the encoder gives nearly the same vector for every sample", 0.1, 1.0
    ),
    Threshold("rankme", "more than 10", 2.0, "the features span only one or two dimensions", 10.0),
)

STANDARDIZE_ADVICE = "--method.standardize, "  # where targets are not standardized

SLOWER_TARGET_ADVICE = (  # where there is an EMA encoder
    "a slower target (--optim.ema-momentum 0.999 --optim.final-ema-momentum 1 --optim.ema-rampup 0) or "
)

ADVICE = "try {}a lower --optim.lr; see docs/health.md"


class CollapseAlarm:
    """Watches the rows of the log; raises the alarm once, without advice that the settings follow already."""

    def __init__(self, method: object = None) -> None:
        self.advice = (
            SLOWER_TARGET_ADVICE if getattr(method, "standardize", False) else STANDARDIZE_ADVICE + SLOWER_TARGET_ADVICE
        )
        self.rows_below = dict.fromkeys((threshold.signal for threshold in THRESHOLDS), 0)
        self.raised = False

    def check(self, row: dict[str, float]) -> str | None:
        """Return a message when a metric has been below its threshold for three consecutive rows, else None."""
        for threshold in THRESHOLDS:
            low = row.get(threshold.signal, threshold.alarm) < threshold.alarm
            self.rows_below[threshold.signal] = self.rows_below[threshold.signal] + 1 if low else 0
            if self.rows_below[threshold.signal] >= ROWS_BEFORE_ALARM and not self.raised:
                self.raised = True
                value = row[threshold.signal]
                return (
                    f"the representation is collapsing: {threshold.meaning} "
                    f"({threshold.signal} {value:.3g}, healthy {threshold.healthy}); "
                    + ADVICE.format(self.advice if "target_std" in row else "")
                )
        return None
