"""Time a step of our Muon against torch.optim.Muon on the block matrices of a small ViT, in one process, interleaved.

    python benchmarks/muon.py                       width 192, depth 6, one thread, 15 repeats

torch's casts every update to bf16, so it multiplies in bf16 in both rows; ours in the surrounding precision.
"five steps" is ours with torch's Newton-Schulz coefficients. "torch" orthogonalizes a qkv matrix as one, which is
update and less work; "torch, split" gets queries, keys and values as three parameters.
Prints median milliseconds, and how many times as long as ours torch's takes for the same update, "torch, split".
"""

import argparse
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.training import muon
from openjepa.training.muon import Muon, block_matrices

OUR_COEFFICIENTS = muon.NEWTON_SCHULZ_COEFFICIENTS
TORCH_COEFFICIENTS = ((3.4445, -4.7750, 2.0315),) * 5


def build_optimizers(dim: int, depth: int) -> dict[str, torch.optim.Optimizer]:
    """Build each optimizer on the encoder's block matrices of a network of its own, with random gradients."""
    data = Image(size=(32, 32), patch=4, mean=(0.5,) * 3, std=(0.25,) * 3)
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for name in ("ours", "ours, five steps", "torch", "torch, split"):
        network = JEPA(ViTConfig(dim=dim, depth=depth, num_heads=3), PredictorConfig(dim=96, depth=1)).build(data)
        pieces = block_matrices(network.context_encoder)
        generator = torch.Generator().manual_seed(0)
        for p in pieces:
            p.grad = torch.randn(p.shape, generator=generator)
        group = {"params": list(pieces), "decays": True, "pieces": list(pieces.values())}
        if name.startswith("ours"):
            optimizers[name] = Muon([group], lr=1e-3, weight_decay=0.04, fused=True)
            continue
        matrices = [part for p, count in pieces.items() for part in split(p, count if name == "torch, split" else 1)]
        optimizers[name] = torch.optim.Muon(matrices, lr=1e-3, weight_decay=0.04, adjust_lr_fn="match_rms_adamw")
    return optimizers


def split(p: Tensor, count: int) -> list[nn.Parameter]:
    """Return copies of the stacked matrices of a parameter as parameters with their gradients."""
    assert p.grad is not None
    parts = [nn.Parameter(part.detach().clone()) for part in p.chunk(count)]
    for part, gradient in zip(parts, p.grad.chunk(count), strict=True):
        part.grad = gradient.clone()
    return parts


def time_steps(optimizers: dict[str, torch.optim.Optimizer], bf16: bool, repeats: int) -> dict[str, float]:
    """Return the median seconds of a step of each optimizer, after two steps to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(repeats + 2):
        for name, optimizer in optimizers.items():
            muon.NEWTON_SCHULZ_COEFFICIENTS = OUR_COEFFICIENTS if name == "ours" else TORCH_COEFFICIENTS
            with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
                start_time = time.perf_counter()
                optimizer.step()
                seconds[name].append(time.perf_counter() - start_time)
    return {name: statistics.median(each[2:]) for name, each in seconds.items()}


def main() -> None:
    """Print a row for each precision."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    optimizers = build_optimizers(options.dim, options.depth)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {options.threads} threads")
    for precision in ("fp32", "bf16"):
        medians = time_steps(optimizers, precision == "bf16", options.repeats)
        row = ", ".join(f"{name} {1000 * each:.1f} ms" for name, each in medians.items())
        print(f"{precision}: {row}; {medians['torch, split'] / medians['ours']:.2f} times as long")


if __name__ == "__main__":
    main()
