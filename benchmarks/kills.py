"""The kill matrix: kill a run at each of its boundaries, resume it, and compare it with an undisturbed run.

    python benchmarks/kills.py --every 1

Prints the table of docs/explained/reliability.md: for each kind of boundary the number of kills, and how many runs
ended with the weights, the optimizer state and the log of the undisturbed one, bit for bit. "Power" is the worst that
a disk may do: everything that was not flushed is lost. It forks, so it runs on Linux and macOS only.
"""

import argparse
import dataclasses
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.cli.pretrain import pretrain
from openjepa.data.synthetic.scenes import render
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim
from openjepa.training.perf import hardware as machine
from tests.faults import (
    list_boundaries,
    load_outcome,
    run_in_fork,
    run_until_killed,
    run_until_power_loss,
    same_outcome,
    sample_every,
)

WAYS = {  # name -> (kind of loss, whether saves are written in the background)
    "killed": ("kill", True),
    "killed, saved in the step": ("kill", False),
    "power lost": ("power", True),
    "power lost, saved in the step": ("power", False),
}


def small(folder: Path) -> Pretrain:
    """Return settings of nine steps on 64 images, with three checkpoints."""
    photos = folder / "photos"
    photos.mkdir()
    for number, image in enumerate(render(64, (32, 32), seed=7).image):
        Pillow.fromarray(image.permute(1, 2, 0).numpy()).save(photos / f"{number:03d}.png")
    return Pretrain(
        data=Image(root=(str(photos),), size=(32, 32), patch=8),
        method=JEPA(
            ViTConfig(dim=32, depth=2, num_heads=2), PredictorConfig(dim=16, depth=1), target_layers=(0, 1),
            target_transforms=("standardize",),
        ),
        optim=Optim(warmup=0.1, ema_momentum=0.99), steps=9, batch_size=16, device="cpu", precision="fp32", threads=1,
        workers=0, log_every=2, save_every=3, keep_last=1, resume="if-any", report=False,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="kill at every n-th boundary")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--out", type=Path, help="a JSON file for the counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine.MATMUL_SIDES, machine.COPY_BYTES = {"cpu": (64,)}, 2**16  # measure the machine's rates in an instant
    began, kills, good = time.perf_counter(), Counter(), Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = small(folder)
        ran(dataclasses.replace(settings, out=folder / "whole"))  # in this process, so that forks need no warm-up
        whole = load_outcome(folder / "whole")
        for way in options.ways:
            kind, beside = WAYS[way]
            there = dataclasses.replace(settings, async_save=beside, out=folder / "place" / "run")
            names = list_boundaries(lambda: ran(there), fresh(there.out), folder / "names.json")  # noqa: B023
            for at in sample_every(len(names), options.every):
                status = attempt(kind, there, at)
                label = names[at - 1]
                if status == 0:
                    continue  # fewer boundaries in this run: the writer thread was ahead
                assert status == -signal.SIGKILL, f"{way} {at} ({label}): {status}"
                kills[label, way] += 1
                resumed = run_in_fork(lambda: ran(there)) == 0  # noqa: B023
                good[label, way] += resumed and same_outcome(load_outcome(there.out), whole)
    ways = options.ways
    print("| boundary | " + " | ".join(ways) + " |\n|---" + "|---" * len(ways) + "|")
    for label in sorted({label for label, _ in kills}):
        print(f"| {label} | " + " | ".join(f"{good[label, way]} of {kills[label, way]}" for way in ways) + " |")
    print(
        f"\n{sum(good.values())} of {sum(kills.values())} identical, {(time.perf_counter() - began) / 60:.0f} minutes"
    )
    if options.out:
        options.out.write_text(
            json.dumps({f"{a}, {b}": [good[a, b], count] for (a, b), count in kills.items()}, indent=1)
        )
    sys.exit(sum(good.values()) != sum(kills.values()))


def fresh(out: Path) -> Path:
    """Create an empty folder for a run."""
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    return out


def attempt(kind: str, settings: Pretrain, at: int) -> int:
    """Run to the n-th boundary and die; leave the run's folder as a resume would find it."""
    out = fresh(settings.out)
    if kind == "kill":
        return run_until_killed(lambda: ran(settings), out, at)
    left = out.parent.with_name("left")
    shutil.rmtree(left, ignore_errors=True)
    status = run_until_power_loss(lambda: ran(settings), out, at, left)
    if status == -signal.SIGKILL:
        shutil.rmtree(out.parent)
        left.rename(out.parent)
    return status


def ran(settings: Pretrain) -> None:
    pretrain(settings)


if __name__ == "__main__":
    main()
