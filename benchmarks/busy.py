"""Time a step of `cifar10-minutes` under several OpenMP waiting policies, alone and beside other work.

    python benchmarks/busy.py --rounds 7 --threads 2                        alone, beside one busy process, beside two
    python benchmarks/busy.py --policies default OMP_WAIT_POLICY=passive    other policies

Each policy has a process of its own; the processes take turns, step batch by step batch, so that a machine whose speed
drifts slows all alike. `busy N` runs N processes that compute without pause; `loaders N` decodes photographs in N
loader processes, whose batches the step takes, as a run on photographs does. Prints the median seconds of a step, and
in brackets the median ratio to the first policy of the same round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parents[1]
POLICIES = ("default", "GOMP_SPINCOUNT=1000", "GOMP_SPINCOUNT=10000", "OMP_WAIT_POLICY=passive")
PHOTOS = 96  # JPEG files for the loaders
PHOTO_SIDE = 400  # pixels


class Worker:
    """A process that times steps under one policy."""

    def __init__(self, policy: str, threads: int, batch: int, photos: Path):
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
            environment.pop(name, None)
        if policy != "default":
            name, _, value = policy.partition("=")
            environment[name] = value
        command = [sys.executable, __file__, "--worker", "--threads", str(threads), "--batch", str(batch)]
        self.process = subprocess.Popen(
            [*command, "--photos", str(photos)],
            env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def time(self, kind: str, steps: int) -> float:
        """Return the median seconds of `steps` steps."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(kind, steps, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Run processes that compute without pause; a single one has a core of its own."""
    pin = ["taskset", "-c", "0"] if count == 1 else []
    code = "n = 0\nwhile True: n += 1"
    processes = [subprocess.Popen([*pin, sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def write_photos(folder: Path) -> None:
    """Write JPEG photographs of smooth noise."""
    import numpy as np
    from PIL import Image as Pillow

    rng = np.random.default_rng(0)
    for number in range(PHOTOS):
        noise = Pillow.fromarray(rng.integers(0, 256, (PHOTO_SIDE // 8, PHOTO_SIDE // 8, 3), dtype=np.uint8))
        noise.resize((PHOTO_SIDE, PHOTO_SIDE), Pillow.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)


def serve(threads: int, batch: int, photos: Path) -> None:
    """Time steps as standard input asks for them: a kind (`synthetic` or `loaders N`) and a number of steps."""
    import dataclasses

    import torch

    from openjepa.data.loader import load_steps
    from openjepa.recipes.image_small import cifar10_minutes
    from openjepa.training.device import choose_device
    from openjepa.training.optim import build_optimizer
    from openjepa.training.perf.allocator import retain_freed_memory
    from openjepa.training.perf.bench import prepare_bench_data
    from openjepa.training.setup import build_model, prepare_data
    from openjepa.training.step import train_step

    retain_freed_memory()
    torch.set_num_threads(threads)
    device = choose_device("cpu")
    run = dataclasses.replace(cifar10_minutes(), steps=1_000_000, batch_size=batch, device="cpu", workers=0)
    small, small_run = prepare_bench_data(run, device)
    method, synthetic = build_model(small_run, small, device)
    step = synthetic[0]
    large = dataclasses.replace(run, data=dataclasses.replace(run.data, root=(str(photos),), size=(96, 96), patch=12))
    data, large_run = prepare_data(large, device, large.data.listing(), None)
    loaded = build_model(large_run, data, device)[1]
    optimizer, hyperparameters = build_optimizer(method, run.optim), run.optim.at(0, 1000)
    for line in sys.stdin:
        kind, *workers, count = line.split()
        batches = iter(lambda: step, None) if kind == "synthetic" else load_steps(loaded, 0, int(workers[0]), False)
        seconds = []
        for _ in range(int(count) + 2):
            start = time.perf_counter()
            batch_of_step = next(batches).batch
            # photographs are loaded, but the step trains on small images: only the loaders' work differs
            train_step(method, optimizer, step.batch if kind != "synthetic" else batch_of_step, hyperparameters, device)
            seconds.append(time.perf_counter() - start)
        del batches
        print(statistics.median(seconds[2:]), flush=True)


def main() -> None:
    """Print a table: a row for each policy, a column for each surrounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="steps of each turn; the median counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--surroundings", nargs="+", default=("alone", "busy 1", "busy 2", "loaders 1", "loaders 2"))
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--worker", action="store_true", help="used by the program itself")
    options = parser.parse_args()
    if options.worker:
        serve(options.threads, options.batch, options.photos)
        return
    print(f"load average before: {os.getloadavg()[0]:.2f}; {os.cpu_count()} cores, {options.threads} threads\n")
    with tempfile.TemporaryDirectory() as photos:
        write_photos(Path(photos))
        workers = {each: Worker(each, options.threads, options.batch, Path(photos)) for each in options.policies}
        table = {each: time_surrounding(each, workers, options) for each in options.surroundings}
        for worker in workers.values():
            worker.close()
    print("| policy | " + " | ".join(table) + " |\n|" + "---|" * (len(table) + 1))
    for policy in options.policies:
        print(f"| {policy} | " + " | ".join(describe(times, policy) for times in table.values()) + " |")


def time_surrounding(name: str, workers: dict[str, Worker], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of a step for each policy and round, in one surrounding."""
    kind = name if name.startswith("loaders") else "synthetic"
    times: dict[str, list[float]] = {policy: [] for policy in workers}
    with busy(int(name.split()[1]) if name.startswith("busy") else 0):
        for number in range(options.rounds):
            turns = list(workers)[number % len(workers) :] + list(workers)[: number % len(workers)]
            for policy in turns:
                times[policy].append(workers[policy].time(kind, options.steps))
    return times


def describe(times: dict[str, list[float]], policy: str) -> str:
    """Return the median of a policy and of its ratios to the first policy."""
    first = next(iter(times.values()))
    ratio = statistics.median(own / other for own, other in zip(times[policy], first, strict=True))
    return f"{statistics.median(times[policy]):.3f} s ({ratio:.2f})"


if __name__ == "__main__":
    main()
