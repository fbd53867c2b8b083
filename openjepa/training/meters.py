"""Measure a run: loss, throughput, wait for data, skipped files, collapse."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from openjepa.core.console import info, warn
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

    def __init__(self, settings: Pretrain, device: Device, ceiling: float):
        self.settings, self.alarm, self.ceiling = settings, CollapseAlarm(settings.method), ceiling  # ceiling in FLOP/s
        self.nonfinite_steps = torch.zeros((), device=device.device)  # consecutive, up to now
        self.samples, self.skipped = 0, 0  # since the start, of this rank
        self.skipped_files: set[Skipped] = set()  # those already listed in skipped.jsonl
        self.report_time = time.perf_counter()  # of the last log row
        self.wait_seconds, self.row_samples = 0.0, 0  # since the last log row, of this rank
        self.flops: int | None = 0  # since the last log row; None: the method does not count them
        self.step_end = time.perf_counter()

    def on_batch(self, count: int, skipped: tuple[Skipped, ...]) -> None:
        """Count the time since the last step ended as a wait for data, and count the files that were skipped.

        Raises RunError if more than `max_skipped` of the samples are undecodable.
        """
        self.wait_seconds += time.perf_counter() - self.step_end
        self.samples, self.skipped = self.samples + count, self.skipped + len(skipped)
        if new := set(skipped) - self.skipped_files:
            if not self.skipped_files:
                warn(f"{skipped[0].path} cannot be decoded ({skipped[0].reason}): skipped.jsonl lists all such files")
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
        count, cost = len(batch.index), self.settings.method.cost(self.settings.data, mask_shapes(batch.masks))
        self.row_samples += count
        self.flops = None if cost is None or self.flops is None else self.flops + count * cost.total
        self.nonfinite_steps = torch.where(finite, 0.0, self.nonfinite_steps + 1)

    def on_end(self) -> None:
        """Note the end of a step: the time from now until the next batch is a wait for data."""
        self.step_end = time.perf_counter()

    def on_finish(self) -> None:
        """Print how many files this rank skipped."""
        if count := len(self.skipped_files):
            files = "file that cannot be decoded was" if count == 1 else "files that cannot be decoded were"
            info(f"skipped    {count:,} {files} replaced by others: {self.settings.out / 'skipped.jsonl'} says why")

    def report(
        self, done: int, results: dict[int, StepResult], hyperparameters: Hyperparameters, log: RunLog | None
    ) -> None:
        """Write a log row after `done` steps and check for collapse. The only place that waits for the device.

        `results` has the newest result of each stream, the run's own data first.

        Raises RunError if gradients stay non-finite, or on a collapse under --stop-on-collapse.
        """
        losses = {stream: all_reduce_sum(each.output.loss.clone()) for stream, each in sorted(results.items())}
        if float(self.nonfinite_steps) >= MAX_NONFINITE_STEPS:
            raise RunError(
                f"the gradient has not been finite for {int(self.nonfinite_steps)} steps: "
                f"try --optim.clip 1 or --optim.lr {self.settings.optim.lr / 3:g}"
            )
        ranks = rank_and_size()[1]
        row = self.row({stream: float(loss) / ranks for stream, loss in losses.items()}, results, hyperparameters)
        message = self.alarm.check(row)
        if log:
            log.write_row(done, {name: value for name, value in row.items() if value == value})  # without NaN
        if message and is_main():
            warn(message)
        if message and self.settings.stop_on_collapse:
            raise RunError(f"stopped at step {done} by --stop-on-collapse: {message}")

    def row(
        self, losses: dict[int, float], results: dict[int, StepResult], hyperparameters: Hyperparameters
    ) -> dict[str, float]:
        """Return the metrics and start to measure the next row; those of further streams have a prefix."""
        now = time.perf_counter()
        seconds = now - self.report_time
        row: dict[str, float] = {}
        for stream, loss in losses.items():
            prefix = f"stream_{stream}_" if stream else ""
            row |= {f"{prefix}{name}": value for name, value in stream_metrics(loss, results[stream]).items()}
        row |= {
            **hyperparameters._asdict(),
            "samples_per_second": self.row_samples * rank_and_size()[1] / seconds,
            "data_wait": self.wait_seconds / seconds,
        }
        if self.ceiling and self.flops is not None:
            row["share_of_ceiling"] = self.flops / seconds / self.ceiling
        self.report_time, self.wait_seconds, self.row_samples, self.flops = now, 0.0, 0, 0
        return row


def stream_metrics(loss: float, result: StepResult) -> dict[str, float]:
    """Return the metrics of a step."""
    return {
        "loss": loss,
        **{name: float(value) for name, value in result.output.metrics.items()},
        "feature_spread": feature_spread(result.output.features),
        "rankme": rankme(result.output.features),
        "grad_norm": float(result.grad_norm),
    }
