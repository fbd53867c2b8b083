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
from openjepa.training.step import train_step


def train(
    config: Pretrain,
    method: Any,
    optimizer: torch.optim.Optimizer,
    loader: Iterator[Step],
    place: Device,
    start: int,
    log: RunLog | None,
    signals: StopSignals,
    saver: CheckpointWriter,
    online: Evaluator | None = None,
) -> None:
    """Takes the steps from `start` to `config.steps`. The log and the probes are the main process's."""
    forward = method if config.fsdp else wrap_ddp(method, place.device)
    meters = Meters(config, place, start, ceiling=matmul_rate(place, MATMUL_REPEATS) if log else 0.0)
    for step, batch, masks, skipped in loader:
        batch, masks = place.move(batch), place.move(masks)
        meters.on_batch(skipped)
        hyper = config.optim.at(step, config.steps)
        taken = train_step(method, optimizer, batch, masks, hyper, place, config.accumulate, config.optim.clip, forward)
        meters.on_step(taken.finite, masks)

        done, stop = step + 1, signals.stop(step, place.device)
        if due(done, config.log_every, config.steps):
            meters.report(done, taken, hyper, log)
        if online and log and online.due(done):
            log.row(done, online.scores(method))
        if due(done, config.save_every, config.steps) or stop:
            if log:
                log.flush()
            if failure := saver.save(done, method, optimizer, must=bool(stop) or done == config.steps):
                raise RunError(f"{failure}; make room, then go on with --resume yes")
        if stop:
            raise Interrupted(stop)
        meters.on_end()


def due(done: int, every: int, total: int) -> bool:
    return done % every == 0 or done == total
