"""Pretraining: the loop, and what stands around it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from openjepa import checkpoint, distributed, health, optim
from openjepa.config import Pretrain
from openjepa.data import Step
from openjepa.device import Place
from openjepa.distributed import replicated, sync_only_when
from openjepa.log import Log, warn
from openjepa.log import skipped as list_skipped
from openjepa.types import Batch, Masks, Mistake, Output, Skipped

MOST_BAD = 5  # steps without a finite gradient in a row before the run stops
ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
AGREE = 10  # steps between two looks, over many processes, at whether to stop


class Stopped(Exception):
    """A signal asked the run to stop; everything is saved."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class Trouble(Mistake):
    """The run cannot go on; the message says why and what to do."""


def train(
    config: Pretrain,
    method: Any,
    optimizer: torch.optim.Optimizer,
    loader: Iterator[Step],
    place: Place,
    start: int,
    log: Log | None,
    signals: Signals,
) -> None:
    """Takes the steps from `start` to `config.steps`. The log is the main process's; the others have none."""
    forward = replicated(method, place.device)
    meters = Meters(config, place, start)
    for step, batch, masks, skipped in loader:
        batch, masks = place.move(batch), place.move(masks)
        meters.got(skipped)
        hyper = config.optim.at(step, config.steps)
        optim.apply(optimizer, hyper)
        optimizer.zero_grad(set_to_none=True)

        with place.autocast():
            targets = method.targets(batch)
        loss = torch.zeros((), device=place.device)
        for micro in split(batch, masks, targets, config.accumulate):
            with place.autocast(), sync_only_when(forward, micro.last):
                output = forward(micro.batch, micro.masks, micro.targets)
            with sync_only_when(forward, micro.last):
                (output.loss / config.accumulate).backward()
            loss += output.loss.detach() / config.accumulate

        norm = optim.clip(method, config.optim.clip)  # after the reduction: the same number on every rank
        finite = optim.step_if_finite(optimizer, norm)
        method.after_step(hyper.momentum, finite)
        meters.took(finite)

        done, stop = step + 1, signals.stop(step, place.device)
        if due(done, config.log_every, config.steps):
            meters.report(done, loss, output, hyper, norm, log)
        if due(done, config.save_every, config.steps) or stop:
            keep(config, done, method, optimizer, must=bool(stop) or done == config.steps)
        if stop:
            raise Stopped(stop)


class Micro(NamedTuple):
    """A part of the batch, small enough for memory."""

    batch: Batch
    masks: tuple[Masks, ...]
    targets: Any
    last: bool


def split(batch: Batch, masks: tuple[Masks, ...], targets: Any, parts: int) -> Iterator[Micro]:
    """The batch in equal parts. Values without a batch axis go with every part."""
    size = len(batch.number) // parts
    for part in range(parts):
        cut = slice(part * size, (part + 1) * size)
        yield Micro(*(rows(value, cut) for value in (batch, masks, targets)), last=part == parts - 1)


def rows(value: Any, cut: slice) -> Any:
    if isinstance(value, Tensor):
        return value[cut] if value.ndim else value
    if isinstance(value, tuple):
        parts = [rows(each, cut) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def due(done: int, every: int, total: int) -> bool:
    return done % every == 0 or done == total


def keep(config: Pretrain, done: int, method: nn.Module, optimizer: torch.optim.Optimizer, must: bool) -> None:
    """Saves on the main process. A failure is told and tried again at the next turn, unless there is none."""
    if distributed.is_main():
        folder = config.out / "checkpoints"
        try:
            checkpoint.save(folder, done, method, optimizer)
            checkpoint.prune(folder, config.keep_last, config.keep_every)
        except OSError as error:
            older = checkpoint.steps(folder)
            left = f"{older[0].name} is intact" if older else "there is none yet"
            message = f"step {done} could not be saved ({error.strerror or error}); of older checkpoints, {left}"
            if must:
                raise Trouble(f"{message}; make room, then go on with --resume yes") from error
            warn(f"{message}; training goes on")
    distributed.barrier()


class Signals:
    """SIGTERM, SIGINT and SIGUSR1 ask the run to save and leave; asked twice, it leaves at once."""

    def __init__(self) -> None:
        self.caught = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            self.before = {number: signal.signal(number, self.catch) for number in ASKING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def catch(self, number: int, frame: Any) -> None:
        self.caught = number
        signal.signal(number, signal.SIG_DFL)

    def stop(self, step: int, device: torch.device) -> int:
        """The signal to leave for, or 0: the same answer on all ranks."""
        if distributed.world()[1] == 1:
            return self.caught
        if (step + 1) % AGREE:
            return 0
        return int(distributed.most(torch.tensor(float(self.caught), device=device)))


class Meters:
    """What is measured beside the loss: nothing is pulled off the device between two reports."""

    def __init__(self, config: Pretrain, place: Place, start: int):
        self.config, self.alarm = config, health.Alarm()
        self.bad = torch.zeros((), device=place.device)  # steps without a finite gradient in a row
        self.begun, self.last, self.waited, self.mark = time.perf_counter(), start, 0.0, time.perf_counter()
        self.seen, self.skips = 0, 0
        self.listed: set[Skipped] = set()

    def got(self, skipped: tuple[Skipped, ...]) -> None:
        """The loader has delivered: what passed since the step before was waiting."""
        self.waited += time.perf_counter() - self.mark
        self.seen, self.skips = self.seen + self.config.batch_size // distributed.world()[1], self.skips + len(skipped)
        if new := set(skipped) - self.listed:
            self.listed |= new
            list_skipped(self.config.out, sorted(new))
        if self.skips > max(8, self.config.max_skipped * self.seen):
            raise Trouble(
                f"{self.skips} of {self.seen} files cannot be decoded, the last {skipped[-1].path} ({skipped[-1].reason}): "
                f"mend the folder, or allow more with --max-skipped {2 * self.config.max_skipped:g}"
            )

    def took(self, finite: Tensor) -> None:
        self.bad = torch.where(finite, 0.0, self.bad + 1)
        self.mark = time.perf_counter()

    def report(
        self, done: int, loss: Tensor, output: Output, hyper: optim.Hyper, norm: Tensor, log: Log | None
    ) -> None:
        """A row for the log, and the alarms. The only place that waits for the device."""
        loss = distributed.total(loss) / distributed.world()[1]
        if float(self.bad) >= MOST_BAD:
            raise Trouble(
                f"the gradient has not been finite for {int(self.bad)} steps: try --optim.clip 1 or --optim.lr {self.config.optim.lr / 3:g}"
            )
        now = time.perf_counter()
        taken, spent = done - self.last, now - self.begun
        row = {
            "loss": float(loss),
            **{name: float(value) for name, value in output.metrics.items()},
            "feature_spread": health.spread(output.features),
            "rankme": health.rankme(output.features),
            "grad_norm": float(norm),
            **hyper._asdict(),
            "images_per_second": taken * self.config.batch_size / spent,
            "data_wait": self.waited / spent,
        }
        self.begun, self.last, self.waited = now, done, 0.0
        self.mark = time.perf_counter()
        message = self.alarm.check(row)
        if log:
            log.row(done, {name: value for name, value in row.items() if value == value})
        if message and distributed.is_main():
            warn(message)
        if message and self.config.stop_on_collapse:
            raise Trouble(f"stopped at step {done} by --stop-on-collapse: {message}")
