"""Turn a time budget into a number of steps; time a few steps of a run without running it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from openjepa.core.capabilities import plural_of
from openjepa.core.config import format_duration, parse_duration
from openjepa.core.console import info, warn
from openjepa.core.distributed import all_reduce_max, is_main, process_cores
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.data.loader import Step
from openjepa.masking.stack import mask_shapes
from openjepa.training.checkpoint_writer import CheckpointWriter
from openjepa.training.config import Pretrain, load_config
from openjepa.training.device import Device, choose_device
from openjepa.training.loop import train
from openjepa.training.optim import build_optimizer
from openjepa.training.perf.hardware import describe_memory, matmul_rate, peak_memory
from openjepa.training.setup import build_model, check_batch_size, prepare_data
from openjepa.training.signals import StopSignals

MARGIN, MIN_STEPS = 0.97, 10  # fraction of a budget that steps may take; fewest steps worth starting a run for

# after a hundred, features were no better than before the first, or worse (studies/small_data/folders.md)
FEW_STEPS = 200


class StepTiming(NamedTuple):
    """Seconds and FLOPs of one step of this process."""

    load_seconds: float  # to load its batch, with all workers busy
    compute_seconds: float
    workers: int
    flops: float | None  # None: the method does not count them
    core_seconds: float = 0.0  # for both together on all cores of this process, which workers share with the step

    @property
    def step_seconds(self) -> float:
        """Return seconds per step; loading overlaps with computing if there are workers."""
        if self.workers:
            return max(self.load_seconds, self.compute_seconds, self.core_seconds)
        return self.load_seconds + self.compute_seconds


def time_step(settings: Pretrain, data: Dataset, device: Device, count: int = 6) -> StepTiming:
    """Time a training step: take `count` of them with a fresh model."""
    method, steps = build_model(settings, data, device)
    optimizer = build_optimizer(method, settings.optim)
    shortened = dataclasses.replace(settings, steps=count, log_every=10**9, save_every=10**9)

    start_time = time.perf_counter()
    batches = [steps[number] for number in range(count)]
    load_seconds = (time.perf_counter() - start_time) / count / max(1, settings.workers)
    with torch.random.fork_rng():
        compute_seconds = median_step_seconds(shortened, method, optimizer, batches, device)
    costs = [settings.method.cost(settings.data, mask_shapes(step.batch.masks)) for step in batches]
    flops = [cost.total for cost in costs if cost is not None]
    busy_seconds = compute_seconds * torch.get_num_threads() + load_seconds * settings.workers  # summed over cores
    return StepTiming(
        load_seconds,
        compute_seconds,
        settings.workers,
        sum(flops) / count * len(batches[0].batch.index) if flops else None,
        busy_seconds / process_cores() if device.device.type == "cpu" else 0.0,
    )


def median_step_seconds(
    settings: Pretrain, method: Any, optimizer: torch.optim.Optimizer, batches: list[Step], device: Device
) -> float:
    """Return the median seconds of a training step, without the first two."""
    seconds = []
    for step in batches:
        start_time = time.perf_counter()
        endless = dataclasses.replace(settings, steps=10**9, save_every=10**9)
        with CheckpointWriter(endless) as writer:
            train(endless, method, optimizer, iter([step]), device, 0, None, StopSignals(), writer)
        if device.device.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - start_time)
    return sorted(seconds[2:])[len(seconds[2:]) // 2]


def check_steps_or_budget(settings: Pretrain) -> Pretrain:
    """Return the settings. Raises UserError if both --steps and --budget are given."""
    if settings.steps:
        raise UserError(
            f"--steps {settings.steps} and --budget {settings.budget} both set the length of the run: leave one out"
        )
    return settings


def restore_steps(settings: Pretrain) -> Pretrain:
    """Return the settings with the number of steps of the resumed run.

    Raises UserError if its budget changed.
    """
    previous = load_config(settings.out)
    if previous.budget != settings.budget:
        raise UserError(
            "a run keeps the number of steps from its first --budget: leave --budget out, or set the length by --steps"
        )
    return dataclasses.replace(settings, steps=settings.steps or previous.steps)


def steps_in_budget(settings: Pretrain, timing: StepTiming, device: Device, start_time: float) -> int:
    """Return how many steps of the slowest process fit into the budget that remains since `start_time`.

    Timed only once: a resumed run keeps its number of steps, so that its schedules and its weights are the same.
    The online probe takes extra time. Raises UserError below MIN_STEPS, warns below FEW_STEPS.
    """
    local = torch.tensor([timing.step_seconds, time.perf_counter() - start_time], device=device.device)
    step_seconds, spent = all_reduce_max(local).tolist()
    remaining = MARGIN * (parse_duration(settings.budget) - spent)
    if remaining < MIN_STEPS * step_seconds:
        raise UserError(
            f"--budget {settings.budget} is too short, a step takes {step_seconds:.2g} s on this machine: "
            f"try --budget {max(1, round(1000 * step_seconds / 60))}m"
        )
    steps = int(remaining / step_seconds)
    if steps < FEW_STEPS and is_main():
        longer = format_duration(spent + 2 * FEW_STEPS * step_seconds / MARGIN)
        warn(
            f"--budget {settings.budget} is enough for {steps} steps on this machine, and models learned little in "
            f"fewer than {FEW_STEPS}: try a smaller --batch-size, or --budget {longer}"
        )
    return steps


def set_steps(settings: Pretrain, steps: int, count: int) -> Pretrain:
    """Return the settings with this number of steps and the epochs that it means for `count` samples."""
    return dataclasses.replace(settings, steps=steps, epochs=steps / max(1, count // settings.batch_size))


def limit_to_budget(settings: Pretrain, budget: str) -> Pretrain:
    """Return the settings with no more steps than fit into `budget`, such as 7m.

    An existing run keeps its number of steps.
    Raises UserError if `budget` is not a duration or is too short for any training.
    """
    if (settings.out / "config.json").is_file():
        return dataclasses.replace(settings, steps=load_config(settings.out).steps)
    device, start_time = choose_device(settings.device, settings.precision), time.perf_counter()
    data, full = prepare_data(settings, device, settings.data.listing(), settings.out / "data")
    timing = time_step(full, data, device)
    steps = steps_in_budget(dataclasses.replace(full, budget=budget), timing, device, start_time)
    if steps < full.steps:
        info(f"budget     {budget} is enough for {steps:,} of {full.steps:,} steps on this machine")
    return dataclasses.replace(settings, steps=min(steps, full.steps))


def dry_run(settings: Pretrain, device: Device) -> Path:
    """Time a few steps, write nothing, and print the time and memory that the run needs.

    Small images, which a run packs first, are read from their files here, so loading is timed slower than it will be.
    """
    if settings.budget:
        check_steps_or_budget(settings)
    check_batch_size(settings)
    start_time = time.perf_counter()
    data, settings = prepare_data(settings, device, settings.data.listing(), None)
    timing = time_step(settings, data, device)
    if settings.budget:
        settings = set_steps(settings, steps_in_budget(settings, timing, device, start_time), len(data))
    memory = peak_memory(device)
    info(
        f"a step     {timing.compute_seconds:.3f} s to compute, {timing.load_seconds:.3f} s to load with "
        f"{settings.workers} workers: {settings.batch_size / timing.step_seconds:.0f} {plural_of(settings.data)}/s"
    )
    info(f"throughput {describe_throughput(timing, device)}")
    info(f"the run    {settings.steps:,} steps, about {format_duration(settings.steps * timing.step_seconds)}")
    info(f"memory     {describe_memory(memory)}")
    keeps_up = timing.load_seconds < timing.compute_seconds or not settings.workers
    advice = "keeps up" if keeps_up else f"does not keep up: try --workers {2 * max(1, settings.workers)}"
    info(f"loader     {advice}")
    return settings.out


def describe_throughput(timing: StepTiming, device: Device) -> str:
    """Return the FLOP/s of a step and their share of a plain matmul's, or that the method does not count FLOPs."""
    if timing.flops is None:
        return "unknown: this method does not count its FLOPs"
    rate = timing.flops / timing.compute_seconds
    return f"{rate / 1e9:,.0f} GFLOP/s, {rate / matmul_rate(device):.0%} of a plain matmul's on this machine"
