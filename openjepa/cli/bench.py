"""Command `jepa bench`: the speed of a training step and the share of what this machine can do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from openjepa.cli.grouped import parse_grouped
from openjepa.cli.parsing import default_settings
from openjepa.core.console import console, info
from openjepa.core.cpus import available_cores
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.perf.bench import prepare_bench_data, time_steps
from openjepa.training.perf.hardware import measure_machine, peak_memory
from openjepa.training.setup import check_batch_size

DESCRIPTION = "Measure this machine, then the training step of a run; on rendered scenes, unless --data.root is given."


@dataclass(frozen=True)
class Bench(Pretrain):
    """Measures this machine, then the step of a run; on rendered scenes, unless it is given data."""

    count: int = 12  # steps timed
    json: Path | None = None  # also write the figures here


def bench(settings: Bench) -> dict[str, Any]:
    """Images/s, FLOPs by part and the share of the measured ceiling; printed, written as JSON if asked for, returned."""
    if settings.count < 3:
        raise UserError(f"{settings.count} steps are too few to time: try --count 12")
    where = choose_device(settings.device, settings.precision)
    torch.set_num_threads(settings.threads or available_cores())
    check_batch_size(settings)
    data, run = prepare_bench_data(settings, where)
    info(f"timing     {settings.count} steps of {settings.batch_size}, after two that warm up; then the machine itself")
    found: dict[str, Any] = {
        "device": str(where.device),
        "precision": where.precision,
        "threads": torch.get_num_threads(),
        "batch": settings.batch_size,
        **time_steps(run, data, where, settings.count),
        "peak_memory": peak_memory(where),
    }
    with console.status("what this machine can do"):
        machine = measure_machine(where)
    rate = found["flops"]["total"] * found["images_per_second"]
    found |= {
        "machine": machine._asdict(),
        "flops_per_second": rate,
        "share_of_ceiling": rate / machine.matrices,
    }
    try:
        print_bench(found, run.workers)
    finally:  # whoever reads what is printed may have left
        if settings.json:
            with atomic_write(settings.json) as temporary:
                temporary.write_text(json.dumps(found, indent=1))
    return found


def print_bench(found: dict[str, Any], workers: int) -> None:
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


def main(arguments: list[str]) -> None:
    """Parse the flags on top of a recipe or the automatic choice, and measure."""
    default, rest = default_settings(arguments)
    bench(parse_grouped(Bench(**vars(default)), rest, "jepa bench [RECIPE]", DESCRIPTION))
