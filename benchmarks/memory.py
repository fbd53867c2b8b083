"""Measure memory and step time with replicated or sharded weights, with and without activation checkpointing.

    python benchmarks/memory.py [--recipe ijepa-vitb16] [--batch 8]

Five configurations in turn: one process, with and without activation checkpointing; two processes with replicated
weights (DDP); two with sharded weights (FSDP2), with and without activation checkpointing. Scenes rendered in memory;
fp32; one thread per process. Each runs twice: once for its time, and once for its memory, with an allocator that
returns freed memory to the system at once. Linux only, since memory is read from /proc.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.core.distributed import barrier, is_main, local_shards
from openjepa.recipes.registry import load_recipe
from openjepa.training.device import choose_device
from openjepa.training.optim import build_optimizer
from openjepa.training.parallel.ddp import wrap_ddp
from openjepa.training.parallel.launch import process_group
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.setup import build_model
from openjepa.training.step import train_step

STEPS = 5
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # glibc returns freed memory at once
WAYS = {  # processes, settings
    "one process": (1, {}),
    "one process, recomputed": (1, {"activation_checkpointing": True}),
    "two processes, whole weights": (2, {}),
    "two processes, spread weights": (2, {"fsdp": True}),
    "two processes, spread and recomputed": (2, {"fsdp": True, "activation_checkpointing": True}),
}


def resident(what: str) -> int:
    """Return bytes of memory: "VmRSS" now, "VmHWM" the peak so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) * 1024


def one(options: argparse.Namespace) -> None:
    """Take some steps and print the memory of this process."""
    if not RETURNED.keys() & os.environ.keys():
        retain_freed_memory()
    torch.set_num_threads(1)
    where = choose_device("cpu", "fp32")
    with process_group(where.device):
        base = load_recipe(options.recipe)
        settings = dataclasses.replace(base, batch_size=options.batch, steps=STEPS, **WAYS[options.way][1])
        settings = dataclasses.replace(
            settings, data=dataclasses.replace(settings.data, mean=(0.5,) * 3, std=(0.25,) * 3)
        )
        method, steps = build_model(settings, settings.data.synthetic(4 * options.batch, 0), where)
        optimizer = build_optimizer(method, settings.optim)
        forward = method if settings.fsdp else wrap_ddp(method, where.device)
        made = [steps[number] for number in range(STEPS)]
        taken = []
        for number, step in enumerate(made):
            if number == 2:  # optimizer state and buckets exist
                Path("/proc/self/clear_refs").write_text("5")
                before = resident("VmRSS")
            barrier()
            began = time.perf_counter()
            train_step(method, optimizer, step.batch, settings.optim.at(number, STEPS), where, forward=forward)
            taken.append(time.perf_counter() - began)
        kept = {"weights": local_shards(method.parameters())}
        kept["gradients"] = local_shards(p.grad for p in method.parameters() if p.grad is not None)
        kept["moments"] = local_shards(x for own in optimizer.state.values() for x in own.values())
        row = {name: sum(x.nbytes for x in own) for name, own in kept.items()}
        row |= {"peak": resident("VmHWM") - before, "step": statistics.median(taken[2:])}
        if is_main():
            print(json.dumps(row))


def taken(way: str, variables: dict[str, str], options: argparse.Namespace) -> dict[str, float]:
    """Run one configuration and return what its first process printed."""
    ranks = WAYS[way][0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}", "WORLD_SIZE": f"{ranks}", **variables}
    command = [sys.executable, __file__, "--way", way, "--recipe", options.recipe, "--batch", f"{options.batch}"]
    started = [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": f"{rank}"}, stdout=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{way}: a process failed")
    return json.loads(said[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", default="ijepa-vitb16")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path, default=Path("runs/memory.json"))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        return one(options)

    found = {}
    print("| a process holds, MB | weights | gradients | moments | more in a step | s a step |\n" + "|---" * 6 + "|")
    for way in WAYS:
        timed, weighed = taken(way, {}, options), taken(way, RETURNED, options)
        row = found[way] = weighed | {"step": timed["step"]}
        cells = [f"{row[name] / 1e6:,.0f}" for name in ("weights", "gradients", "moments", "peak")]
        print(f"| {way} | {' | '.join(cells)} | {row['step']:.2f} |", flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1))
    return None


if __name__ == "__main__":
    main()
