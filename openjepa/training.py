"""Pretraining: the loop, and what stands around it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa import optim
from openjepa.config import Pretrain
from openjepa.core.console import warn
from openjepa.core.distributed import all_reduce_max, all_reduce_sum, is_main, rank_and_size
from openjepa.core.errors import Interrupted, RunError
from openjepa.core.types import Batch, Masks, Output, Skipped
from openjepa.data.loader import Step
from openjepa.device import Place
from openjepa.distributed import replicated, sync_only_when
from openjepa.evaluate.online import Online
from openjepa.flops import shapes, work
from openjepa.health import Alarm
from openjepa.log import Log
from openjepa.log import skipped as list_skipped
from openjepa.machine import matrix_rate
from openjepa.nn.rank import feature_spread, rankme
from openjepa.optim import Hyper, apply, step_if_finite
from openjepa.saving import Saver

MOST_BAD = 5  # steps without a finite gradient in a row before the run stops

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)  # Slurm sends the last two

TIMES = 4  # products timed for the ceiling

AGREE = 10  # steps between two looks, over many processes, at whether to stop


def train(
    config: Pretrain,
    method: Any,
    optimizer: torch.optim.Optimizer,
    loader: Iterator[Step],
    place: Place,
    start: int,
    log: Log | None,
    signals: Signals,
    saver: Saver,
    online: Online | None = None,
) -> None:
    """Takes the steps from `start` to `config.steps`. The log and the probes are the main process's."""
    forward = method if config.sharded else replicated(method, place.device)
    meters = Meters(config, place, start, ceiling=matrix_rate(place, TIMES) if log else 0.0)
    for step, batch, masks, skipped in loader:
        batch, masks = place.move(batch), place.move(masks)
        meters.got(skipped)
        hyper = config.optim.at(step, config.steps)
        taken = advance(method, optimizer, batch, masks, hyper, place, config.accumulate, config.optim.clip, forward)
        meters.took(taken.finite, masks)

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
        meters.ready()


class Taken(NamedTuple):
    """What a step leaves behind, all on the device."""

    loss: Float[Tensor, ""]  # of this rank's samples
    norm: Float[Tensor, ""]  # of the gradient over all ranks, before clipping
    finite: Bool[Tensor, ""]  # whether the weights were updated
    output: Output  # of the last micro-batch


def advance(
    method: Any,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    masks: tuple[Masks, ...],
    hyper: Hyper,
    place: Place,
    accumulate: int = 1,
    clip: float = 0.0,
    forward: Any = None,
) -> Taken:
    """One training step: targets, gradients, update, average. `forward` is the method as replicated over ranks, if it is."""
    forward = forward or method
    apply(optimizer, hyper)
    optimizer.zero_grad(set_to_none=True)
    with place.autocast():
        targets = method.targets(batch, masks)
    outputs: list[Output] = []
    for micro in split(batch, masks, targets, accumulate):
        with sync_only_when(forward, micro.last):
            with place.autocast():
                outputs.append(forward(micro.batch, micro.masks, micro.targets))
            (outputs[-1].loss / accumulate).backward()
    norm = optim.clip(method, clip)  # after the reduction: the same number on every rank
    with place.autocast():  # for Muon's products
        finite = step_if_finite(optimizer, norm)
    method.after_step(hyper.momentum, finite)
    loss = torch.stack([output.loss.detach() for output in outputs]).mean()
    return Taken(loss, norm, finite, outputs[-1])


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


class Signals:
    """SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 ask the run to save and leave; asked twice, it leaves at once.

    What was ignored when the run began stays so, as SIGHUP under nohup.
    """

    def __init__(self) -> None:
        self.caught = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            heard = [number for number in ASKING if signal.getsignal(number) != signal.SIG_IGN]
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
        if (step + 1) % AGREE:
            return 0
        return int(all_reduce_max(torch.tensor(float(self.caught), device=device)))


class Meters:
    """What is measured beside the loss: nothing is pulled off the device between two reports."""

    def __init__(self, config: Pretrain, place: Place, start: int, ceiling: float):
        self.config, self.alarm, self.ceiling = config, Alarm(config.method), ceiling
        self.bad = torch.zeros((), device=place.device)  # steps without a finite gradient in a row
        self.begun, self.last, self.waited, self.mark = time.perf_counter(), start, 0.0, time.perf_counter()
        self.local = config.batch_size // rank_and_size()[1]  # of a step's samples
        self.seen, self.skips, self.work = 0, 0, 0
        self.listed: set[Skipped] = set()

    def got(self, skipped: tuple[Skipped, ...]) -> None:
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

    def took(self, finite: Tensor, masks: tuple[Masks, ...]) -> None:
        """The step is on its way: its work is known beforehand, whether it was any good only on the device."""
        self.work += self.local * work(self.config.method, self.config.data, shapes(masks)).total
        self.bad = torch.where(finite, 0.0, self.bad + 1)

    def ready(self) -> None:
        """Everything about the step is done: what passes from now on is waiting for data."""
        self.mark = time.perf_counter()

    def report(self, done: int, step: Taken, hyper: Hyper, log: Log | None) -> None:
        """A row for the log, and the alarms. The only place that waits for the device."""
        loss, output = all_reduce_sum(step.loss) / rank_and_size()[1], step.output
        if float(self.bad) >= MOST_BAD:
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
            "grad_norm": float(step.norm),
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
