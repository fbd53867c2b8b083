"""Stop a run on SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2."""

from __future__ import annotations

import signal
import threading
from typing import Any

import torch

from openjepa.core.distributed import all_reduce_max, rank_and_size

NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")  # Slurm sends the last two; Windows has the first two

STOP_SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))

STEPS_BETWEEN_CHECKS = 10  # with many processes: steps between two all-reduces of whether to stop


class StopSignals:
    """Catches a stop signal, so that the run saves and stops; a second one ends it at once.

    A signal that was ignored when the run began stays ignored, such as SIGHUP under nohup.
    """

    def __init__(self) -> None:
        self.caught = 0
        self.previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            signals = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self.previous_handlers = {number: signal.signal(number, self.catch) for number in signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)

    def catch(self, number: int, frame: Any) -> None:
        """Note the signal, and restore its default action for the next one."""
        self.caught = number
        signal.signal(number, signal.SIG_DFL)

    def check(self, step: int, device: torch.device) -> int:
        """Return the signal to stop for after this step, or 0; the same value on every rank."""
        if rank_and_size()[1] == 1:
            return self.caught
        if (step + 1) % STEPS_BETWEEN_CHECKS:
            return 0
        return int(all_reduce_max(torch.tensor(float(self.caught), device=device)))
