"""Train a recipe on CIFAR-10 on a GPU, several seeds in parallel for the same time, then probe them.

    python benchmarks/gpu/cifar10.py --data cifar10/ --json cifar10.json
    python benchmarks/gpu/cifar10.py --data cifar10/ --recipe mae-cifar10 --out runs/mae-gpu --json mae.json

`--data` holds train/ and test/ with a folder per class. `--out` gets one run folder per seed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from openjepa.cli.probe import probe
from openjepa.cli.settings import Probe
from openjepa.evaluation.settings import LabeledData


def started(
    out: Path, seed: int, together: int, options: argparse.Namespace, more: list[str]
) -> subprocess.Popen[bytes]:
    """Start `jepa pretrain`, one of several runs in parallel; `more` are further settings."""
    command = [
        sys.executable, "-m", "openjepa", "pretrain", options.recipe, "--data.root", options.data / "train",
        "--out", out, "--seed", seed, "--device", options.device, "--budget", options.budget,
        "--batch-size", options.batch_size, "--save-every", 1_000_000,
        "--threads", max(1, len(os.sched_getaffinity(0)) // together), *more,
    ]  # fmt: skip
    return subprocess.Popen([str(word) for word in command], cwd=Path(__file__).parents[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="cifar10")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10-gpu"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", default="6m30s", help="time of pretraining; probes take the rest of nine minutes")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    parser.add_argument("more", nargs="*", help="settings of jepa pretrain, after --")
    options = parser.parse_args()
    options.data, options.out = options.data.resolve(), options.out.resolve()

    together = len(options.seeds)
    running = [started(options.out / f"seed{seed}", seed, together, options, options.more) for seed in options.seeds]
    if failed := [seed for seed, run in zip(options.seeds, running, strict=True) if run.wait()]:
        sys.exit(f"seeds {failed} failed")
    found: dict[str, list[float]] = {}
    for seed in options.seeds:
        settings = Probe(
            run=str(options.out / f"seed{seed}"),
            data=LabeledData((str(options.data),)),
            device=options.device,
            baselines=seed == options.seeds[0],
        )
        for score in probe(settings):
            found.setdefault(f"{score.features}, {score.metric}", []).append(score.value)
    for name, values in found.items():
        print(f"{name:40} {statistics.mean(values):6.1f}  ({', '.join(f'{value:.1f}' for value in values)})")
    if options.json:
        options.json.write_text(json.dumps({**vars(options), "scores": found}, indent=1, default=str))


if __name__ == "__main__":
    main()
