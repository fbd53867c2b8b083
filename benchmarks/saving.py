"""Measure what a checkpoint costs: the time a step waits for it, saved in the step and in the background.

    python benchmarks/saving.py --model small --batch 32 --threads 1

Three saves, one after every fourth step. "waits" is the time until training continues. "costs" is the time per save
that the whole run took beyond its plain steps: it includes the time by which a save in the background slows the steps
beside it.
"""

import argparse
import dataclasses
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.data.loader import Step, Steps
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.vit import VIT_SIZES, ViTConfig
from openjepa.recipes.registry import load_recipe
from openjepa.training.checkpoint_writer import CheckpointWriter
from openjepa.training.device import choose_device
from openjepa.training.optim import build_optimizer
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.step import train_step

SAVES, BETWEEN = 3, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=sorted(VIT_SIZES), default="small")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0: all")
    parser.add_argument(
        "--out", type=Path, default=Path(tempfile.gettempdir()), help="a folder on the disk to be measured"
    )
    options = parser.parse_args()
    retain_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    where, base = choose_device(options.device), load_recipe("cifar10")
    data = Image(size=(224, 224), patch=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    config = dataclasses.replace(
        base, data=data, method=JEPA(ViTConfig(**VIT_SIZES[options.model])), batch_size=options.batch, keep_last=1
    )
    method = config.method.build(data).to(where.device)
    optimizer = build_optimizer(method, config.optim)
    step = Steps(
        data.synthetic(options.batch, 0), config.masks, data.layout, batch_size=options.batch, total_steps=9, seed=0
    )[0]

    def take() -> float:
        began = time.perf_counter()
        made = Step(step.step, where.move(step.batch), ())
        train_step(method, optimizer, made.batch, config.optim.at(1, 9), where)
        if where.device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - began

    plain = statistics.median([take() for _ in range(10)][3:])
    print(
        f"{options.model}, batch {options.batch}, {where.device}, {torch.get_num_threads()} threads: "
        f"{plain:.3f} s per step"
    )
    print("| saved | MB | waits, s | of a step | costs, s | of a step |\n|---" + "|---" * 5 + "|")
    for beside in (False, True):
        out = Path(tempfile.mkdtemp(dir=options.out))
        waits, began = [], time.perf_counter()
        with CheckpointWriter(dataclasses.replace(config, out=out, async_save=beside)) as saver:
            for number in range(SAVES * BETWEEN):
                take()
                if number % BETWEEN == 0:
                    asked = time.perf_counter()
                    saver.save(number + 1, method, optimizer, required=False)
                    waits.append(time.perf_counter() - asked)
        cost = (time.perf_counter() - began - SAVES * BETWEEN * plain) / SAVES
        size = sum(file.stat().st_size for file in next((out / "checkpoints").iterdir()).iterdir())
        shutil.rmtree(out)
        wait = statistics.median(waits)
        name = "beside" if beside else "in the step"
        print(f"| {name} | {size / 1e6:.0f} | {wait:.3f} | {wait / plain:.0%} | {cost:.2f} | {cost / plain:.0%} |")


if __name__ == "__main__":
    main()
