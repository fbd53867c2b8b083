"""Compare the speed of two checkouts: interleaved pairs, the median ratio and its 95 % interval.

    python benchmarks/pairs.py --before ../openjepa-before --pairs 15

Each checkout runs its own `benchmarks/speed.py` in a process of its own; the two take turns, so that a machine whose
speed drifts slows both alike. A ratio above 1 means that this checkout is slower. The interval is a bootstrap of the
median.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parents[1]


class Worker:
    """The process of one checkout."""

    def __init__(self, checkout: Path):
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "benchmarks/speed.py"],
            cwd=checkout, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.names = self.read().split(",")

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit("a worker ended: run benchmarks/speed.py in its checkout to see why")
        return line

    def time(self, name: str) -> float:
        assert self.process.stdin is not None
        print(name, file=self.process.stdin, flush=True)
        return float(self.read())


def interval(ratios: list[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (10_000, len(ratios))), axis=1)
    return float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="another checkout, with its own benchmarks/speed.py")
    parser.add_argument("--pairs", type=int, default=15)
    options = parser.parse_args()
    after, before = Worker(HERE), Worker(options.before.resolve())
    print("| timing | before, ms | after, ms | ratio | 95 % interval |\n|---|---|---|---|---|")
    for name in after.names:
        pairs = [(before.time(name), after.time(name)) for _ in range(options.pairs)]
        ratios = [new / old for old, new in pairs]
        low, high = interval(ratios)
        old, new = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"| {name} | {old:.1f} | {new:.1f} | {statistics.median(ratios):.3f} | {low:.3f} to {high:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
