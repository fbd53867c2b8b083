"""The training loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from openjepa.core.errors import Interrupted, RunError
from openjepa.data.loader import Step
from openjepa.training.callbacks import Evaluator
from openjepa.training.checkpoint_writer import CheckpointWriter
from openjepa.training.config import Pretrain
from openjepa.training.device import Device
from openjepa.training.log import RunLog
from openjepa.training.meters import MATMUL_REPEATS, Meters
from openjepa.training.parallel.ddp import wrap_ddp
from openjepa.training.perf.hardware import matmul_rate
from openjepa.training.signals import StopSignals
from openjepa.training.step import StepResult, train_step


def train(
    settings: Pretrain,
    method: Any,
    optimizer: torch.optim.Optimizer,
    loader: Iterator[Step],
    device: Device,
    start: int,
    log: RunLog | None,
    signals: StopSignals,
    writer: CheckpointWriter,
    evaluator: Evaluator | None = None,
) -> None:
    """Train from step `start` to `settings.steps`. Only the main process has a log and an evaluator.

    Raises:
        RunError: too many files are undecodable, gradients stay non-finite, or a required checkpoint cannot be written.
        Interrupted: a signal asked the run to stop; its checkpoint is written.
    """
    optim, total = settings.optim, settings.steps
    forward = method if settings.fsdp else wrap_ddp(method, device.device)
    meters = Meters(settings, device, ceiling=matmul_rate(device, MATMUL_REPEATS) if log else 0.0)
    newest: dict[int, StepResult] = {}  # of each stream
    for step, batch, skipped in loader:
        batch = device.move(batch)
        meters.on_batch(len(batch.index), skipped)
        hyperparameters = optim.at(step, total)
        result = train_step(method, optimizer, batch, hyperparameters, device, settings.accumulate, optim.clip, forward)
        meters.on_step(result.finite, batch)
        newest[batch.stream] = result

        done = step + 1
        stop_signal = signals.check(step, device.device)
        if is_due(done, settings.log_every, total):
            meters.report(done, newest, hyperparameters, log)
        if evaluator and log and evaluator.due(done):
            log.write_row(done, evaluator.scores(method))
        if is_due(done, settings.save_every, total) or stop_signal:
            if log:
                log.flush()
            failure = writer.save(done, method, optimizer, required=bool(stop_signal) or done == total)
            if failure:
                raise RunError(f"{failure}; free disk space, then continue with --resume yes")
        if stop_signal:
            raise Interrupted(stop_signal)
        meters.on_end()
    meters.on_finish()


def is_due(done: int, every: int, total: int) -> bool:
    """Return whether to act after `done` steps: every `every` steps, and after the last."""
    return done % every == 0 or done == total
