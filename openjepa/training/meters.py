"""Measure a run: loss, throughput, wait for data, skipped files, collapse."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from openjepa.core.console import warn
from openjepa.core.distributed import all_reduce_sum, is_main, rank_and_size
from openjepa.core.errors import RunError
from openjepa.core.types import Batch, Skipped
from openjepa.masking.stack import mask_shapes
from openjepa.nn.rank import feature_spread, rankme
from openjepa.training.collapse import CollapseAlarm
from openjepa.training.config import Pretrain
from openjepa.training.device import Device
from openjepa.training.log import RunLog, log_skipped
from openjepa.training.optim import Hyperparameters
from openjepa.training.step import StepResult

MAX_NONFINITE_STEPS = 5  # consecutive steps without a finite gradient after which the run stops

MATMUL_REPEATS = 4  # matmuls that are timed to measure the hardware's ceiling


class Meters:
    """Measures a run between two log rows. Nothing waits for the device except `report`."""

    def __init__(self, settings: Pretrain, device: Device, start: int, ceiling: float):
        self.settings, self.alarm, self.ceiling = settings, CollapseAlarm(settings.method), ceiling  # ceiling in FLOP/s
        self.nonfinite_steps = torch.zeros((), device=device.device)  # consecutive, up to now
        self.samples_per_step = settings.batch_size // rank_and_size()[1]  # of this rank
        self.samples, self.skipped = 0, 0  # since the start, of this rank
        self.skipped_files: set[Skipped] = set()  # those already listed in skipped.jsonl
        self.report_step, self.report_time = start, time.perf_counter()  # of the last log row
        self.wait_seconds = 0.0  # since the last log row
        self.flops: int | None = 0  # since the last log row; None: the method does not count them
        self.step_end = time.perf_counter()

    def on_batch(self, skipped: tuple[Skipped, ...]) -> None:
        """Count the time since the last step ended as a wait for data, and count the files that were skipped.

        Raises RunError if more than `max_skipped` of the samples are undecodable.
        """
        self.wait_seconds += time.perf_counter() - self.step_end
        self.samples, self.skipped = self.samples + self.samples_per_step, self.skipped + len(skipped)
        if new := set(skipped) - self.skipped_files:
            self.skipped_files |= new
            log_skipped(self.settings.out, sorted(new))
        if self.skipped > max(8, self.settings.max_skipped * self.samples):
            enough = min(1.0, 1.5 * self.skipped / self.samples)
            raise RunError(
                f"{self.skipped} of {self.samples} samples cannot be decoded, the last is {skipped[-1].path} "
                f"({skipped[-1].reason}): repair or remove these files (jepa doctor lists them), "
                f"or continue with --resume yes --max-skipped {enough:.2g}"
            )

    def on_step(self, finite: Tensor, batch: Batch) -> None:
        """Count the FLOPs of a step, and, on the device, steps without a finite gradient."""
        cost = self.settings.method.cost(self.settings.data, mask_shapes(batch.masks))
        self.flops = None if cost is None or self.flops is None else self.flops + self.samples_per_step * cost.total
        self.nonfinite_steps = torch.where(finite, 0.0, self.nonfinite_steps + 1)

    def on_end(self) -> None:
        """Note the end of a step: the time from now until the next batch is a wait for data."""
        self.step_end = time.perf_counter()

    def report(self, done: int, result: StepResult, hyperparameters: Hyperparameters, log: RunLog | None) -> None:
        """Write a log row after `done` steps and check for collapse. The only place that waits for the device.

        Raises RunError if gradients stay non-finite, or on a collapse under --stop-on-collapse.
        """
        loss = all_reduce_sum(result.output.loss.clone()) / rank_and_size()[1]
        if float(self.nonfinite_steps) >= MAX_NONFINITE_STEPS:
            raise RunError(
                f"the gradient has not been finite for {int(self.nonfinite_steps)} steps: "
                f"try --optim.clip 1 or --optim.lr {self.settings.optim.lr / 3:g}"
            )
        row = self.row(done, float(loss), result, hyperparameters)
        message = self.alarm.check(row)
        if log:
            log.write_row(done, {name: value for name, value in row.items() if value == value})  # without NaN
        if message and is_main():
            warn(message)
        if message and self.settings.stop_on_collapse:
            raise RunError(f"stopped at step {done} by --stop-on-collapse: {message}")

    def row(self, done: int, loss: float, result: StepResult, hyperparameters: Hyperparameters) -> dict[str, float]:
        """Return the metrics after `done` steps and start to measure the next row."""
        now = time.perf_counter()
        steps, seconds = done - self.report_step, now - self.report_time
        row = {
            "loss": loss,
            **{name: float(value) for name, value in result.output.metrics.items()},
            "feature_spread": feature_spread(result.output.features),
            "rankme": rankme(result.output.features),
            "grad_norm": float(result.grad_norm),
            **hyperparameters._asdict(),
            "samples_per_second": steps * self.settings.batch_size / seconds,
            "data_wait": self.wait_seconds / seconds,
        }
        if self.ceiling and self.flops is not None:
            row["share_of_ceiling"] = self.flops / seconds / self.ceiling
        self.report_time, self.report_step = now, done
        self.wait_seconds, self.flops = 0.0, 0
        return row
