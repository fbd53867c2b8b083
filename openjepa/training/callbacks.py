"""Define the callbacks of a run to higher levels of the package.

The command line passes all of them, a plain run none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from openjepa.core.protocols import Method
from openjepa.training.config import Pretrain
from openjepa.training.device import Device


@runtime_checkable
class Evaluator(Protocol):
    """Evaluates the encoder during a run, on the main process."""

    def due(self, done: int) -> bool:
        """Return whether to evaluate after `done` steps."""
        ...

    def scores(self, method: Method) -> dict[str, float]:
        """Evaluate; the names and values become a row of the log."""
        ...


class Callbacks(NamedTuple):
    """Functions of higher levels that a run calls where they are given."""

    evaluator: Callable[[Pretrain, Device], Evaluator] | None = None  # called if --online-probe.root is given
    curves: Callable[[list[Path], Path], Path | None] | None = None  # draws the training curves of runs to a file
    report: Callable[[Path], Path | None] | None = None  # writes the report of a finished run
