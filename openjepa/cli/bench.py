"""Command `jepa bench`: the speed of a training step and the share of what this machine can do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from openjepa.cli.grouped import parse_grouped
from openjepa.cli.parsing import default_settings
from openjepa.core.capabilities import plural_of
from openjepa.core.console import console, info
from openjepa.core.cpus import available_cores
from openjepa.core.errors import UserError
from openjepa.core.fileio import write_text
from openjepa.core.tables import print_table
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.perf.bench import prepare_bench_data, time_steps
from openjepa.training.perf.hardware import describe_memory, measure_machine, peak_memory
from openjepa.training.setup import check_batch_size
from openjepa.training.stages import Stages

DESCRIPTION = "Time the training step of a run, on rendered samples without --data.root, and measure this machine."


@dataclass(frozen=True)
class Bench(Pretrain):
    """Settings of a run, and of its measurement."""

    count: int = 12  # steps to time
    json: Path | None = None  # also write the results to this file


def bench(settings: Bench) -> dict[str, Any]:
    """Measure samples/s, FLOPs by network, and the share of the measured ceiling; print and return them.

    Also writes them as JSON if `settings.json` names a file.
    """
    if settings.count < 3:
        raise UserError(f"--count must be >= 3, got {settings.count}: try --count 12")
    device = choose_device(settings.device, settings.precision)
    torch.set_num_threads(settings.threads or available_cores())
    check_batch_size(settings)
    data, run = prepare_bench_data(settings, device)
    info(f"timing     {settings.count} steps of {settings.batch_size} samples, after two for warm-up; then the machine")
    result: dict[str, Any] = {
        "device": str(device.device),
        "precision": device.precision,
        "threads": torch.get_num_threads(),
        "batch": settings.batch_size,
        **time_steps(run, data, device, settings.count),
        "peak_memory": peak_memory(device),
    }
    with console.status("measuring the machine"):
        machine = measure_machine(device)
    result["machine"] = machine._asdict()
    if result["flops"]:
        rate = result["flops"]["total"] * result["samples_per_second"]
        result |= {"flops_per_second": rate, "share_of_ceiling": rate / machine.matrices}
    if settings.json:
        write_text(settings.json, json.dumps(result, indent=1))
    print_bench(result, run.workers, plural_of(run.data))
    return result


def print_bench(result: dict[str, Any], workers: int, plural: str) -> None:
    """Print the machine's rates, the step's speed, and tables of the step's parts and of the FLOPs."""
    machine = result["machine"]
    info(
        f"machine    {result['device']}, {result['threads']} threads, {result['precision']}: "
        f"{machine['matrices'] / 1e9:,.0f} GFLOP/s in matmuls, {machine['copy'] / 1e9:.1f} GB/s copied, "
        f"{machine['decode']:.0f} JPEGs/s decoded per core"
    )
    info(
        f"step       {result['step']:.3f} s, {result['samples_per_second']:,.1f} {plural}/s; "
        f"{result['data_wait']:.0%} of a run waits for data; peak memory {describe_memory(result['peak_memory'])}"
    )
    if result["flops"]:
        info(
            f"reached    {result['flops_per_second'] / 1e9:,.0f} GFLOP/s, "
            f"{result['share_of_ceiling']:.0%} of the matmul rate"
        )
    else:
        info("reached    unknown: this method does not count its FLOPs")
    if imagination := result.get("imagination"):
        reached = imagination["flops"] * imagination["steps_per_second"]
        info(
            f"imagines   {imagination['steps_per_second']:,.0f} steps/s: {reached / 1e9:,.1f} GFLOP/s, "
            f"{reached / machine['matrices']:.0%} of the matmul rate"
        )
    rows = []
    for name, seconds in result["seconds"].items():
        loading = "in parallel" if workers else "before the step"
        share = loading if name == "load" else f"{seconds / result['step']:.0%}"
        rows.append((name, f"{1000 * seconds:.1f}", share))
    print_table(("part", "ms", "share of the step"), rows, "parts of a step")
    if result["flops"]:
        print_flops(result["flops"], plural)


def print_flops(work: dict[str, int], plural: str) -> None:
    """Print a table of the FLOPs of each network."""
    rows = [
        (name, f"{work[name] / 1e9:.3f}", f"{work[name] / work['total']:.0%}")
        for name in ("target", "context", "predictor", "total")
    ]
    print_table(("network", f"GFLOP per {plural[:-1]}", "share"), rows, "work, with backward counted as twice forward")


def main(arguments: list[str]) -> dict[str, Any]:
    """Parse the flags on top of a recipe or the automatic choice, and measure."""
    default, rest = default_settings(arguments)
    default = default.runs[0] if isinstance(default, Stages) else default  # of a recipe of stages: the first
    return bench(parse_grouped(Bench(**vars(default)), rest, "jepa bench [RECIPE]", DESCRIPTION))
