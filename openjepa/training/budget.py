"""Turn a time budget into a number of steps; rehearse a run."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from openjepa.core.config import format_duration, parse_duration
from openjepa.core.console import info, warn
from openjepa.core.cpus import available_cores
from openjepa.core.distributed import all_reduce_max, is_main, local_size
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.training.checkpoint_writer import CheckpointWriter
from openjepa.training.config import Pretrain, load_config
from openjepa.training.device import Device, choose_device
from openjepa.training.loop import train
from openjepa.training.optim import build_optimizer
from openjepa.training.perf.flops import count_flops, mask_shapes
from openjepa.training.perf.hardware import matmul_rate, peak_memory
from openjepa.training.setup import build_model, check_batch_size, prepare_data
from openjepa.training.signals import StopSignals

MARGIN, MIN_STEPS = 0.97, 10  # of a budget: the share that steps may take, and the fewest that are worth beginning

FEW_STEPS = 200  # steps; after a hundred, features were no better than before the first, or worse (docs/folders.md)


class StepTiming(NamedTuple):
    """Seconds a step."""

    loading: float  # with all workers at work
    stepping: float
    workers: int
    work: float  # FLOP a step, of this process
    shared: float = 0.0  # both spread over all cores, where the workers have none of their own

    @property
    def step(self) -> float:
        """Of both together: at the same time where there are workers, one after the other where there are none."""
        return max(self.loading, self.stepping, self.shared) if self.workers else self.loading + self.stepping


def time_step(settings: Pretrain, data: Dataset, where: Device, count: int = 6) -> StepTiming:
    """How long a step takes, by taking a few with a method of its own."""
    method, steps = build_model(settings, data, where)
    optimizer = build_optimizer(method, settings.optim)
    shortened = dataclasses.replace(settings, steps=count, log_every=10**9, save_every=10**9)

    began = time.perf_counter()
    made = [steps[number] for number in range(count)]
    loading = (time.perf_counter() - began) / count / max(1, settings.workers)
    with torch.random.fork_rng():
        stepping = timed_steps(shortened, method, optimizer, made, where)
    work = [count_flops(settings.method, settings.data, mask_shapes(step.masks)).total for step in made]
    mine = available_cores() / local_size()
    busy = stepping * torch.get_num_threads() + loading * settings.workers  # seconds of a core
    shared = busy / mine if where.device.type == "cpu" else 0.0
    return StepTiming(loading, stepping, settings.workers, sum(work) / count * len(made[0].batch.index), shared)


def check_one_length(settings: Pretrain) -> Pretrain:
    """Mistake if both a time and a number of steps were asked for."""
    if settings.steps:
        raise UserError(
            f"--steps {settings.steps} and --budget {settings.budget} are two lengths of one run: leave one out"
        )
    return settings


def keep_steps(settings: Pretrain) -> Pretrain:
    """A resumed run's own number of steps. Mistake if it is given another time than it began with."""
    began = load_config(settings.out)
    if began.budget != settings.budget:
        raise UserError(
            "a run keeps the number of steps that its first --budget gave: leave --budget out, or give --steps"
        )
    return dataclasses.replace(settings, steps=settings.steps or began.steps)


def steps_in_budget(settings: Pretrain, pace: StepTiming, where: Device, began: float) -> int:
    """The steps that fit into the budget, by the slowest process; what has passed since `began` is spent.

    Timed once: a run that is resumed keeps its number of steps, so that its schedules, and its weights, are the same.
    Probes during the run come on top. Fewer than LEAST are a Mistake, fewer than FEW are warned of.
    """
    step, spent = all_reduce_max(torch.tensor([pace.step, time.perf_counter() - began], device=where.device)).tolist()
    left = MARGIN * (parse_duration(settings.budget) - spent)
    if left < MIN_STEPS * step:
        raise UserError(
            f"a step takes {step:.2g} s here, so {settings.budget} is too short: try --budget {max(1, round(1000 * step / 60))}m"
        )
    steps = int(left / step)
    if steps < FEW_STEPS and is_main():
        warn(
            f"{settings.budget} hold {steps} steps here, and a hundred were seen to teach nothing: "
            f"try --budget {format_duration(spent + 2 * FEW_STEPS * step / MARGIN)}"
        )
    return steps


def with_steps(settings: Pretrain, steps: int, count: int) -> Pretrain:
    """The run with another number of steps."""
    return dataclasses.replace(settings, steps=steps, epochs=steps / max(1, count // settings.batch_size))


def limit_to_budget(settings: Pretrain, budget: str) -> Pretrain:
    """The run with as many of its steps as the time holds here, and no more than it has; one that was begun keeps its own.

    Mistake if `budget`, such as 7m, is no time or too short for anything.
    """
    if (settings.out / "config.json").is_file():
        return dataclasses.replace(settings, steps=load_config(settings.out).steps)
    where, began = choose_device(settings.device, settings.precision), time.perf_counter()
    data, timed = prepare_data(settings, where, settings.data.listing(), settings.out / "data")
    held = steps_in_budget(dataclasses.replace(timed, budget=budget), time_step(timed, data, where), where, began)
    if held < timed.steps:
        info(f"time       {budget} hold {held:,} of its {timed.steps:,} steps on this machine")
    return dataclasses.replace(settings, steps=min(held, timed.steps))


def dry_run(settings: Pretrain, where: Device) -> Path:
    """Takes a few steps in no folder and says how long the run takes, how much memory, and whether the loader keeps up.

    Small pictures, which a run packs first, are read from their files here: the loader is timed slower than it will be.
    """
    if settings.budget:
        check_one_length(settings)
    check_batch_size(settings)
    began = time.perf_counter()
    data, settings = prepare_data(settings, where, settings.data.listing(), None)
    pace = time_step(settings, data, where)
    if settings.budget:
        settings = with_steps(settings, steps_in_budget(settings, pace, where, began), len(data))
    memory = peak_memory(where)
    info(
        f"a step     {pace.stepping:.3f} s computing, {pace.loading:.3f} s loading with {settings.workers} workers: {settings.batch_size / pace.step:.0f} images/s"
    )
    rate = pace.work / pace.stepping
    info(f"reached    {rate / 1e9:,.0f} GFLOP/s, {rate / matmul_rate(where):.0%} of what matrix products reach here")
    info(f"the run    {settings.steps:,} steps, about {format_duration(settings.steps * pace.step)}")
    info(f"memory     {memory / 2**30:.1f} GiB")
    keeps = pace.loading < pace.stepping or not settings.workers
    info(
        "loader     keeps up" if keeps else f"loader     does not keep up: try --workers {2 * max(1, settings.workers)}"
    )
    return settings.out


def timed_steps(settings: Pretrain, method: Any, optimizer: torch.optim.Optimizer, made: list, where: Device) -> float:
    """Seconds a step, the median without the first two."""
    seconds = []
    for step in made:
        began = time.perf_counter()
        endless = dataclasses.replace(settings, steps=10**9, save_every=10**9)
        with CheckpointWriter(endless) as saver:
            train(endless, method, optimizer, iter([step]), where, 0, None, StopSignals(), saver)
        if where.device.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds[2:])[len(seconds[2:]) // 2]
