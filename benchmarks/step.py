"""Compare the speed of a training step in plain fp32 (minimal/ijepa.py) and in the package, on the same batch in turn.

    python benchmarks/step.py                       ViT-S/16, 224 px, batch 32, Official, predictor 384×6

Prints for each the share of the matmul rate measured in the same run. Only matmuls count as work: 2·m·n·k each,
backward as twice forward. Threads: torch's default, or --threads.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from minimal import ijepa as plain
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch
from openjepa.data.loader import Step
from openjepa.masking.official import Official
from openjepa.masking.stack import mask_shapes
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import VIT_SIZES, ViTConfig
from openjepa.training.device import Device, choose_device
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.perf.hardware import matmul_rate, time_call
from openjepa.training.step import train_step


def package(data: Image, method: JEPA, step: Step, where: Device) -> Callable[[], object]:
    """Return the package's training step."""
    net = method.build(data).to(where.device)
    settings = Optim()
    optimizer, moved = build_optimizer(net, settings), where.move(step)
    return lambda: train_step(net, optimizer, moved.batch, settings.at(0, 1000), where)


def reference(data: Image, method: JEPA, step: Step, where: Device) -> Callable[[], object]:
    """Return the same step in plain fp32, from minimal/ijepa.py."""
    encoder, predictor = method.encoder, method.predictor
    sizes = encoder.dim, encoder.depth, encoder.num_heads, predictor.dim, predictor.depth
    net = plain.IJEPA(data.layout.shape, data.patch, *sizes).to(where.device)
    optimizer, (mask,) = plain.build_optimizer(net), where.move(step.batch.masks)
    images = (step.batch.views[0].float() / 255 - 0.45).div(0.225).to(where.device)
    return lambda: plain.train_step(net, optimizer, 1, 1000, 100, images, mask.context, mask.target)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    retain_freed_memory()  # as `jepa` does, for both
    if options.threads:
        torch.set_num_threads(options.threads)
    where = choose_device()

    data = Image(size=(224, 224), patch=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    method = JEPA(ViTConfig(**VIT_SIZES["small"]), PredictorConfig(dim=384, depth=6))
    (masks,) = Official()(data.layout, None, None, CounterRNG.of(0, 2, np.arange(options.batch)), 0.0)
    view = torch.randint(0, 256, (options.batch, 3, 224, 224), dtype=torch.uint8)
    step = Step(0, Batch((view,), torch.arange(options.batch), (masks,)), ())

    rates = {each.precision: matmul_rate(each) for each in (Device(where.device, False), where)}
    steps = {
        "plain": reference(data, method, step, where),
        "package": package(data, method, step, where),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(options.rounds + 1):
        for name, function in steps.items():
            _, seconds = time_call(function, where)
            if turn:  # the first warms up
                times[name].append(seconds)

    ((context, blocks, tokens),) = shapes = mask_shapes(step.batch.masks)
    precisions, work = {"plain": "fp32", "package": where.precision}, method.cost(data, shapes).total
    print(f"{where.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}")
    print(
        f"ViT-S/16, batch {options.batch}: context {context}, targets {blocks}×{tokens}, "
        f"{work / 1e9:.1f} GFLOP per image"
    )
    for name, kind in precisions.items():
        value = statistics.median(times[name])
        rate = options.batch * work / value
        speed = f"{value:7.3f} s  {options.batch / value:8.2f} images/s  {rate / 1e9:7.0f} GFLOP/s"
        print(f"{name:8} {kind}  {speed}  {rate / rates[kind]:5.1%} of {rates[kind] / 1e9:.0f}")
    ratio = statistics.median(a / b for a, b in zip(times["plain"], times["package"], strict=True))
    print(f"the package is {ratio:.2f} times as fast")
    if options.json:
        options.json.write_text(json.dumps({"seconds": times, "ratio": ratio, "rates": rates}, indent=1))


if __name__ == "__main__":
    main()
