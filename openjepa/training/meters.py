"""Measure a run: loss, throughput, data wait, skipped files, collapse."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from openjepa.core.console import warn
from openjepa.core.distributed import all_reduce_sum, is_main, rank_and_size
from openjepa.core.errors import RunError
from openjepa.core.types import Masks, Skipped
from openjepa.nn.rank import feature_spread, rankme
from openjepa.training.collapse import CollapseAlarm
from openjepa.training.config import Pretrain
from openjepa.training.device import Device
from openjepa.training.log import RunLog
from openjepa.training.log import log_skipped as list_skipped
from openjepa.training.optim import Hyperparameters
from openjepa.training.perf.flops import count_flops, mask_shapes
from openjepa.training.step import StepResult

MAX_NONFINITE_STEPS = 5  # steps without a finite gradient in a row before the run stops

MATMUL_REPEATS = 4  # products timed for the ceiling


class Meters:
    """What is measured beside the loss: nothing is pulled off the device between two reports."""

    def __init__(self, config: Pretrain, place: Device, start: int, ceiling: float):
        self.config, self.alarm, self.ceiling = config, CollapseAlarm(config.method), ceiling
        self.bad = torch.zeros((), device=place.device)  # steps without a finite gradient in a row
        self.begun, self.last, self.waited, self.mark = time.perf_counter(), start, 0.0, time.perf_counter()
        self.local = config.batch_size // rank_and_size()[1]  # of a step's samples
        self.seen, self.skips, self.work = 0, 0, 0
        self.listed: set[Skipped] = set()

    def on_batch(self, skipped: tuple[Skipped, ...]) -> None:
        """The loader has delivered: what passed since the step before was waiting."""
        self.waited += time.perf_counter() - self.mark
        self.seen, self.skips = self.seen + self.local, self.skips + len(skipped)
        if new := set(skipped) - self.listed:
            self.listed |= new
            list_skipped(self.config.out, sorted(new))
        if self.skips > max(8, self.config.max_skipped * self.seen):
            raise RunError(
                f"{self.skips} of {self.seen} samples drawn cannot be decoded, the last {skipped[-1].path} ({skipped[-1].reason}): "
                f"mend the folder (jepa doctor lists them), or go on with --resume yes --max-skipped {min(1.0, 1.5 * self.skips / self.seen):.2g}"
            )

    def on_step(self, finite: Tensor, masks: tuple[Masks, ...]) -> None:
        """The step is on its way: its work is known beforehand, whether it was any good only on the device."""
        self.work += self.local * count_flops(self.config.method, self.config.data, mask_shapes(masks)).total
        self.bad = torch.where(finite, 0.0, self.bad + 1)

    def on_end(self) -> None:
        """Everything about the step is done: what passes from now on is waiting for data."""
        self.mark = time.perf_counter()

    def report(self, done: int, step: StepResult, hyper: Hyperparameters, log: RunLog | None) -> None:
        """A row for the log, and the alarms. The only place that waits for the device."""
        loss, output = all_reduce_sum(step.loss) / rank_and_size()[1], step.output
        if float(self.bad) >= MAX_NONFINITE_STEPS:
            raise RunError(
                f"the gradient has not been finite for {int(self.bad)} steps: try --optim.clip 1 or --optim.lr {self.config.optim.lr / 3:g}"
            )
        now = time.perf_counter()
        taken, spent = done - self.last, now - self.begun
        row = {
            "loss": float(loss),
            **{name: float(value) for name, value in output.metrics.items()},
            "feature_spread": feature_spread(output.features),
            "rankme": rankme(output.features),
            "grad_norm": float(step.grad_norm),
            **hyper._asdict(),
            "images_per_second": taken * self.config.batch_size / spent,
            "data_wait": self.waited / spent,
        }
        if self.ceiling:
            row["share_of_ceiling"] = self.work / spent / self.ceiling
        self.begun, self.last, self.waited, self.work = now, done, 0.0, 0
        message = self.alarm.check(row)
        if log:
            log.row(done, {name: value for name, value in row.items() if value == value})
        if message and is_main():
            warn(message)
        if message and self.config.stop_on_collapse:
            raise RunError(f"stopped at step {done} by --stop-on-collapse: {message}")
