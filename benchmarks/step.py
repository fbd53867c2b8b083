"""How fast a training step is: plain fp32 (minimal/ijepa.py) against the package, on the same batch, turn by turn.

    python benchmarks/step.py                       ViT-S/16, 224 px, batch 32, OfficialBlocks, predictor 384×6

Prints, beside each, the share of the matrix rate measured in the same run; only the listed mathematics counts as work:
matrix products of 2·m·n·k, backward as twice forward. Threads as torch chooses, or --threads.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from minimal import ijepa as plain
from openjepa import optim
from openjepa.data import Step
from openjepa.device import place
from openjepa.draws import Draws
from openjepa.encoder import SIZES
from openjepa.masking import Masking
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.types import Batch


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Best of 1024² and 2048² products, in FLOP/s."""
    best = 0.0
    for size in (1024, 2048):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        seconds = min(timed(lambda a=a, b=b: a @ b, device) for _ in range(12))
        best = max(best, 2 * size**3 / seconds)
    return best


def timed(function, device: torch.device) -> float:
    """Seconds a call takes."""
    began = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def work(method: JEPA, images: int, patches: int, context: int, blocks: int, asked: int, patch: int) -> float:
    """FLOPs of one training step's listed mathematics."""

    def transformer(tokens: int, dim: int, depth: int, ratio: float) -> float:
        return depth * (tokens * dim * dim * (8 + 4 * ratio) + 4 * tokens * tokens * dim)

    embed = 2 * 3 * patch * patch * method.dim
    target = transformer(patches, method.dim, method.depth, method.mlp_ratio) + patches * embed
    shown = transformer(context, method.dim, method.depth, method.mlp_ratio) + context * embed
    predicted = blocks * transformer(context + asked, method.predictor_dim, method.predictor_depth, 4.0)
    predicted += 2 * method.dim * method.predictor_dim * (context + blocks * asked)
    return images * (target + 3 * shown + 3 * predicted)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    where = place()

    data = Image(size=(224, 224), patch=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    method = JEPA(**SIZES["small"], predictor_dim=384, predictor_depth=6)
    settings = optim.Optim()
    (masks,) = Masking(sampler="official").build(data.grid)(None, None, Draws.of(0, 2, np.arange(options.batch)), 0.0)
    view = torch.randint(0, 256, (options.batch, 3, 224, 224), dtype=torch.uint8)
    step = Step(0, Batch((view,), torch.arange(options.batch)), (masks,), ())

    net = method.build(data).to(where.device)
    optimizer = optim.build(net, settings)
    moved = where.move(step)

    def ours() -> None:
        hyper = settings.at(0, 1000)
        optim.apply(optimizer, hyper)
        optimizer.zero_grad(set_to_none=True)
        with where.autocast():
            output = net(moved.batch, moved.masks, net.targets(moved.batch))
        output.loss.backward()
        finite = optim.step_if_finite(optimizer, optim.clip(net, 0.0))
        net.after_step(hyper.momentum, finite)

    reference = plain.IJEPA(data.grid, 16, 384, 12, 6, 384, 6).to(where.device)
    plainly = plain.optimiser(reference)
    images = (view.float() / 255 - 0.45).div(0.225).to(where.device)
    shown, asked = moved.masks[0].context, moved.masks[0].target

    def theirs() -> None:
        plain.step(reference, plainly, 1, 1000, 100, images, shown, asked)

    rates = {"fp32": matrix_rate(torch.float32, where.device), "bf16": matrix_rate(torch.bfloat16, where.device)}
    times: dict[str, list[float]] = {"plain": [], "package": []}
    for function in (theirs, ours):
        timed(function, where.device)
    for _ in range(options.rounds):
        times["plain"].append(timed(theirs, where.device))
        times["package"].append(timed(ours, where.device))

    flops = work(method, options.batch, data.grid[0] * data.grid[1], shown.shape[1], asked.shape[1], asked.shape[2], 16)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(a / b for a, b in zip(times["plain"], times["package"], strict=True))
    kinds = {"plain": "fp32", "package": "bf16" if where.bf16 else "fp32"}
    print(
        f"{where.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}; ViT-S/16, batch {options.batch}"
    )
    print(
        f"context {shown.shape[1]}, targets {asked.shape[1]}×{asked.shape[2]}, {flops / options.batch / 1e9:.1f} GFLOP an image"
    )
    for name, value in seconds.items():
        share = flops / value / rates[kinds[name]]
        print(
            f"{name:8} {kinds[name]}  {value:7.3f} s  {options.batch / value:8.2f} images/s  {flops / value / 1e9:7.0f} GFLOP/s  {share:5.1%} of {rates[kinds[name]] / 1e9:.0f}"
        )
    print(f"the package is {ratio:.2f} times as fast")
    if options.json:
        options.json.write_text(
            json.dumps({"seconds": seconds, "ratio": ratio, "rates": rates, "flops": flops}, indent=1)
        )


if __name__ == "__main__":
    main()
