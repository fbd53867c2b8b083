"""Watch the logged metrics for representation collapse."""

from __future__ import annotations

from openjepa.methods.base import MethodConfig

ROWS_BEFORE_ALARM = 3  # consecutive log rows below the threshold


class CollapseAlarm:
    """Watches the rows of the log for the signals of a method; raises the alarm once, with the method's advice."""

    def __init__(self, method: MethodConfig) -> None:
        self.signals, self.advice = method.signals(), method.advice()
        self.rows_below = dict.fromkeys((signal.name for signal in self.signals), 0)
        self.raised = False

    def check(self, row: dict[str, float]) -> str | None:
        """Return a message when a metric has been below its threshold for three consecutive rows, else None."""
        for signal in self.signals:
            low = row.get(signal.name, signal.alarm) < signal.alarm
            self.rows_below[signal.name] = self.rows_below[signal.name] + 1 if low else 0
            if self.rows_below[signal.name] >= ROWS_BEFORE_ALARM and not self.raised:
                self.raised = True
                return (
                    f"{signal.problem}: {signal.meaning} "
                    f"({signal.name} {row[signal.name]:.3g}, healthy {signal.healthy}); {self.advice}"
                )
        return None
