"""Save and leave on SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2."""

from __future__ import annotations

import signal
import threading
from typing import Any

import torch

from openjepa.core.distributed import all_reduce_max, rank_and_size

STOP_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)  # Slurm sends the last two

STEPS_BETWEEN_CHECKS = 10  # steps between two looks, over many processes, at whether to stop


class StopSignals:
    """SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 ask the run to save and leave; asked twice, it leaves at once.

    What was ignored when the run began stays so, as SIGHUP under nohup.
    """

    def __init__(self) -> None:
        self.caught = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            heard = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self.before = {number: signal.signal(number, self.catch) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def catch(self, number: int, frame: Any) -> None:
        self.caught = number
        signal.signal(number, signal.SIG_DFL)

    def stop(self, step: int, device: torch.device) -> int:
        """The signal to leave for, or 0: the same answer on all ranks."""
        if rank_and_size()[1] == 1:
            return self.caught
        if (step + 1) % STEPS_BETWEEN_CHECKS:
            return 0
        return int(all_reduce_max(torch.tensor(float(self.caught), device=device)))
