"""Time the parts of a training step."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import torch
from rich.progress import track

from openjepa.core.capabilities import Measures
from openjepa.core.console import console
from openjepa.core.protocols import Dataset
from openjepa.core.types import Batch
from openjepa.data.loader import Step
from openjepa.masking.stack import mask_shapes
from openjepa.nn.world import World
from openjepa.training.config import Pretrain
from openjepa.training.device import Device
from openjepa.training.optim import (
    Hyperparameters,
    build_optimizer,
    clip_gradients,
    set_hyperparameters,
    step_if_finite,
)
from openjepa.training.perf.hardware import time_call
from openjepa.training.perf.imagination import measure_imagination
from openjepa.training.setup import build_model, prepare_data
from openjepa.training.step import MicroBatch, micro_batches, prepare_views


def time_steps(run: Pretrain, data: Dataset, device: Device, count: int) -> dict[str, Any]:
    """Return medians over `count` steps, after two for warm-up: the whole step, its parts, and the wait for data."""
    run = dataclasses.replace(run, steps=count + 2)
    method, steps = build_model(run, data, device)
    optimizer, hyperparameters = build_optimizer(method, run.optim), run.optim.at(0, 1000)
    parts: dict[str, list[float]] = {}
    shapes = []
    for number in track(range(run.steps), "steps", console=console, transient=True, disable=not console.is_terminal):
        step, loading = time_call(lambda number=number: steps[number], device)
        times = {"load": loading, **time_step_parts(run, method, optimizer, step, hyperparameters, device)}
        shapes = mask_shapes(step.batch.masks)
        if number >= 2:
            for name, seconds in times.items():
                parts.setdefault(name, []).append(seconds)
    medians = {name: statistics.median(each) for name, each in parts.items()}
    computing = statistics.median(map(sum, zip(*(each for name, each in parts.items() if name != "load"), strict=True)))
    result: dict[str, Any] = {"seconds": medians, "step": computing, "samples_per_second": run.batch_size / computing}
    result["data_wait"] = data_wait_share(medians["load"] / max(1, run.workers), computing, run.workers)
    world = getattr(method, "world", None)
    if isinstance(world, World):
        result["imagination"] = measure_imagination(world, run.data, device.move(steps[0].batch))._asdict()
    cost = run.method.cost(run.data, shapes)
    return {**result, "flops": None if cost is None else {**cost._asdict(), "total": cost.total}}


def prepare_bench_data(run: Pretrain, device: Device) -> tuple[Dataset, Pretrain]:
    """Load the run's data, or render synthetic samples for two steps; also return the run with no setting left open."""
    if getattr(run.data, "root", ()):
        return prepare_data(run, device, run.data.listing(), None)
    data = run.data.synthetic(2 * run.batch_size, run.seed)
    if isinstance(run.data, Measures):
        run = dataclasses.replace(run, data=run.data.measure(data))
        data = run.data.synthetic(2 * run.batch_size, run.seed)
    return data, dataclasses.replace(run, workers=max(0, run.workers))


def time_step_parts(
    run: Pretrain,
    method: Any,
    optimizer: torch.optim.Optimizer,
    step: Step,
    hyperparameters: Hyperparameters,
    device: Device,
) -> dict[str, float]:
    """Do what `train_step` does and return the seconds of each part.

    The device finishes one part before the next starts, so the sum is a little more than the time of `train_step`.
    """
    batch = device.move(step.batch)

    def compute_targets() -> tuple[Batch, Any]:
        with device.autocast(), torch.no_grad():
            prepared = prepare_views(method, batch)
            prepared = prepared._replace(masks=method.masks(prepared))
            return prepared, method.targets(prepared)

    def forward(micro: MicroBatch) -> Any:
        with device.autocast():
            return method(micro.batch, micro.targets)

    def update() -> None:
        set_hyperparameters(optimizer, hyperparameters)
        with device.autocast():
            finite = step_if_finite(optimizer, clip_gradients(method, run.optim.clip))
        method.after_step(hyperparameters.momentum, finite)
        optimizer.zero_grad(set_to_none=True)

    times = {"targets": 0.0, "forward": 0.0, "backward": 0.0, "update": 0.0}
    (prepared, targets), times["targets"] = time_call(compute_targets, device)
    for micro in micro_batches(prepared, targets, run.accumulate):
        output, seconds = time_call(lambda micro=micro: forward(micro), device)
        times["forward"] += seconds
        times["backward"] += time_call((output.loss / run.accumulate).backward, device)[1]
    times["update"] = time_call(update, device)[1]
    return times


def data_wait_share(loading: float, computing: float, workers: int) -> float:
    """Return the share of time that a run waits for data; with workers, loading overlaps with computing."""
    wait = max(0.0, loading - computing) if workers > 0 else loading
    return wait / (computing + wait)
