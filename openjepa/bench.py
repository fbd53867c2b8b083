"""`jepa bench`: what this machine can do, and how much of that a training step gets out of it."""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from rich.table import Table

from openjepa import flops
from openjepa.config import Pretrain
from openjepa.core.console import console, info
from openjepa.core.cpus import available_cores
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.core.protocols import Dataset
from openjepa.data.loader import Step
from openjepa.data.normalization import measure_mean_std
from openjepa.device import Place, place
from openjepa.machine import measured, peak, timed
from openjepa.modalities.image import Image
from openjepa.optim import Hyper, apply, build, clip, step_if_finite
from openjepa.preparing import built, divides, prepared
from openjepa.training import Micro, split


@dataclass(frozen=True)
class Bench(Pretrain):
    """Measures this machine, then the step of a run; on rendered scenes, unless it is given data."""

    count: int = 12  # steps timed
    json: Path | None = None  # also write the figures here


def bench(settings: Bench) -> dict[str, Any]:
    """Images/s, FLOPs by part and the share of the measured ceiling; printed, written as JSON if asked for, returned."""
    if settings.count < 3:
        raise UserError(f"{settings.count} steps are too few to time: try --count 12")
    where = place(settings.device, settings.precision)
    torch.set_num_threads(settings.threads or available_cores())
    divides(settings)
    data, run = given(settings, where)
    info(f"timing     {settings.count} steps of {settings.batch_size}, after two that warm up; then the machine itself")
    found: dict[str, Any] = {
        "device": str(where.device),
        "precision": where.precision,
        "threads": torch.get_num_threads(),
        "batch": settings.batch_size,
        **stepped(run, data, where, settings.count),
        "peak_memory": peak(where),
    }
    with console.status("what this machine can do"):
        machine = measured(where)
    rate = found["flops"]["total"] * found["images_per_second"]
    found |= {
        "machine": machine._asdict(),
        "flops_per_second": rate,
        "share_of_ceiling": rate / machine.matrices,
    }
    try:
        show(found, run.workers)
    finally:  # whoever reads what is printed may have left
        if settings.json:
            with atomic_write(settings.json) as temporary:
                temporary.write_text(json.dumps(found, indent=1))
    return found


def stepped(run: Pretrain, data: Dataset, where: Place, count: int) -> dict[str, Any]:
    """Medians over `count` steps, after two that warm up: the whole step, each part of it, and the wait for data."""
    run = dataclasses.replace(run, steps=count + 2)
    method, steps = built(run, data, where)
    optimizer, hyper = build(method, run.optim), run.optim.at(0, 1000)
    parts: dict[str, list[float]] = {}
    shapes = []
    for number in track(range(run.steps), "steps", console=console, transient=True, disable=not console.is_terminal):
        step, loading = timed(lambda number=number: steps[number], where)
        taken = {"load": loading, **parted(run, method, optimizer, step, hyper, where)}
        shapes = flops.shapes(step.masks)
        if number >= 2:
            for name, seconds in taken.items():
                parts.setdefault(name, []).append(seconds)
    medians = {name: statistics.median(each) for name, each in parts.items()}
    computing = statistics.median(map(sum, zip(*(each for name, each in parts.items() if name != "load"), strict=True)))
    found: dict[str, Any] = {"seconds": medians, "step": computing, "images_per_second": run.batch_size / computing}
    found["data_wait"] = waiting(medians["load"] / max(1, run.workers), computing, run.workers)
    work = flops.work(run.method, run.data, shapes)
    return {**found, "flops": {**work._asdict(), "total": work.total}}


def given(run: Pretrain, where: Place) -> tuple[Dataset, Pretrain]:
    """The run's own data, or as many rendered scenes as two steps want, and the run with what was left to be chosen."""
    if run.data.root:
        return prepared(run, where, run.data.listing(), None)
    data = run.data.synthetic(2 * run.batch_size, run.seed)
    if isinstance(run.data, Image) and not run.data.mean:
        mean, std = measure_mean_std(data)
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, mean=mean, std=std))
        data = run.data.synthetic(2 * run.batch_size, run.seed)
    return data, dataclasses.replace(run, workers=max(0, run.workers))


def parted(
    run: Pretrain, method: Any, optimizer: torch.optim.Optimizer, step: Step, hyper: Hyper, where: Place
) -> dict[str, float]:
    """The parts of `training.advance`, one after the other, each waited for: together a little slower than it."""
    batch, masks = where.move(step.batch), where.move(step.masks)

    def targeted() -> Any:
        with where.autocast():
            return method.targets(batch, masks)

    def forward(micro: Micro) -> Any:
        with where.autocast():
            return method(micro.batch, micro.masks, micro.targets)

    def update() -> None:
        apply(optimizer, hyper)
        with where.autocast():
            finite = step_if_finite(optimizer, clip(method, run.optim.clip))
        method.after_step(hyper.momentum, finite)
        optimizer.zero_grad(set_to_none=True)

    taken = {"targets": 0.0, "forward": 0.0, "backward": 0.0, "update": 0.0}
    targets, taken["targets"] = timed(targeted, where)
    for micro in split(batch, masks, targets, run.accumulate):
        output, seconds = timed(lambda micro=micro: forward(micro), where)
        taken["forward"] += seconds
        taken["backward"] += timed((output.loss / run.accumulate).backward, where)[1]
    taken["update"] = timed(update, where)[1]
    return taken


def waiting(loading: float, computing: float, workers: int) -> float:
    """The share of time that a run waits for data: loading goes on beside computing where there are workers."""
    wait = max(0.0, loading - computing) if workers > 0 else loading
    return wait / (computing + wait)


def show(found: dict[str, Any], workers: int) -> None:
    machine = found["machine"]
    info(
        f"machine    {found['device']}, {found['threads']} threads, {found['precision']}: {machine['matrices'] / 1e9:,.0f} GFLOP/s in products,"
        f" {machine['copy'] / 1e9:.1f} GB/s copied, {machine['decode']:.0f} JPEGs/s decoded on a core"
    )
    info(
        f"a step     {found['step']:.3f} s, {found['images_per_second']:,.1f} images/s; {found['data_wait']:.0%} of a run waits for data;"
        f" memory {found['peak_memory'] / 2**30:.1f} GiB at most"
    )
    info(
        f"reached    {found['flops_per_second'] / 1e9:,.0f} GFLOP/s, {found['share_of_ceiling']:.0%} of the products' rate"
    )
    table = Table("part", "ms", "share of the step", title="a step, part by part")
    for name, seconds in found["seconds"].items():
        share = ("beside it" if workers else "before it") if name == "load" else f"{seconds / found['step']:.0%}"
        table.add_row(name, f"{1000 * seconds:.1f}", share)
    console.print(table)
    work, table = found["flops"], Table("network", "GFLOP an image", "share", title="work, backward as twice forward")
    for name in ("target", "context", "predictor", "total"):
        table.add_row(name, f"{work[name] / 1e9:.3f}", f"{work[name] / work['total']:.0%}")
    console.print(table)
