"""Pretrain on CIFAR-10 on a GPU, train a decoder on top, sample from it and measure the agreement.

    python benchmarks/gpu/decoder.py --data cifar10/ --json decoder.json

`--data` holds train/ and test/. `--out` gets the run, the decoder inside it, and the figure of samples.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path


def jepa(*words: object) -> float:
    """Run a command and return its seconds; exit if it fails."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "openjepa", *map(str, words)]
    if subprocess.run(command, cwd=Path(__file__).parents[2]).returncode:
        sys.exit(f"jepa {words[0]} {words[1]} failed")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/decoder-gpu"))
    parser.add_argument("--recipe", default="cifar10-minutes")
    parser.add_argument("--budget", default="2m", help="time of pretraining")
    parser.add_argument("--decoder-budget", default="4m")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--count", type=int, default=256, help="images that the agreement is measured on")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data, run = options.data.resolve(), options.out.resolve()
    shared = ("--device", options.device, "--batch-size", options.batch_size)
    took = {
        "pretrain": jepa(
            "pretrain", options.recipe, "--data.root", data / "train", "--out", run, "--budget", options.budget, *shared
        ),
        "decoder train": jepa("decoder", "train", run, "--budget", options.decoder_budget, *shared),
        "decoder sample": jepa("decoder", "sample", run / "decoder", data / "test"),
        "decoder measure": jepa("decoder", "measure", run / "decoder", data / "test", "--count", options.count),
    }  # fmt: skip
    found = json.loads((run / "decoder" / "agreement.json").read_text())
    for name, seconds in took.items():
        print(f"{name:16} {seconds:6.1f} s")
    for each in found["scores"]:
        print(f"{each['metric']}, {each['features']}: {each['value']:.3g} {each['unit']}")
    if options.json:
        options.json.write_text(
            json.dumps({**vars(options), "seconds": took, "agreement": found}, indent=1, default=str)
        )


if __name__ == "__main__":
    main()
