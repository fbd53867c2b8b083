"""Time a training step of the paper's models on one GPU in bf16, compiled and eager: images/s, TFLOP/s, share of peak.

python benchmarks/gpu/step.py --json step.json        (--device cpu --tiny tries the script itself)
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch
from openjepa.data.loader import Step
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.stack import mask_shapes
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import VIT_SIZES, ViTConfig
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.optim import build_optimizer
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.perf.compile import compile_blocks
from openjepa.training.perf.hardware import matmul_rate, time_call
from openjepa.training.step import train_step

CASES = {  # size, patch, predictor depth, batch
    "S/16": ("small", 16, 6, 256),
    "B/16": ("base", 16, 6, 256),
    "L/16": ("large", 16, 12, 128),
    "H/14": ("huge", 14, 12, 128),
}


def measure(
    size: str, patch: int, predictor_depth: int, batch: int, device: str, compiled: bool
) -> dict[str, float | bool]:
    """Time one model's steps with the masks that occur: the median of ten, after three warm-up steps."""
    where = choose_device(device)
    data = Image(size=(224, 224), patch=patch, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    method = JEPA(ViTConfig(**VIT_SIZES[size]), PredictorConfig(dim=384, depth=predictor_depth))
    run = Pretrain(data, method, MultiBlock(), batch_size=batch)
    view = torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8)
    numbers = np.arange(batch)
    made = [
        Step(
            step,
            Batch(
                (view,),
                torch.from_numpy(numbers),
                run.masks(data.layout, None, None, CounterRNG.of(0, step, numbers), 0.0),
            ),
            (),
        )
        for step in range(13)
    ]
    net = method.build(data).to(where.device)
    optimizer = build_optimizer(net, run.optim)
    began = time.perf_counter()
    if compiled:
        compile_blocks(run, net, made[0], where)
    waited = time.perf_counter() - began

    seconds, work = [], []
    for step in made:
        batch_ = where.move(step.batch)
        hyper = run.optim.at(step.step, 1000)
        seconds.append(time_call(lambda b=batch_, h=hyper: train_step(net, optimizer, b, h, where), where)[1])
        work.append(batch * method.cost(data, mask_shapes(batch_.masks)).total)
    rate = float(np.median([done / took for done, took in zip(work[3:], seconds[3:], strict=True)]))
    gib = torch.cuda.max_memory_allocated() / 2**30 if where.device.type == "cuda" else float("nan")
    return {
        "compiled": compiled,
        "compiling": waited,
        "images_per_second": batch / float(np.median(seconds[3:])),
        "tflops": rate / 1e12,
        "share": rate / matmul_rate(where),
        "gib": gib,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="models")
    parser.add_argument("--tiny", action="store_true", help="one small case, to try the script without a GPU")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    retain_freed_memory()
    found: dict[str, list[dict[str, float | bool]]] = {}
    cases = {"tiny": ("tiny", 16, 1, 4)} if options.tiny else {name: CASES[name] for name in options.only}
    for name, case in cases.items():
        for compiled in (False, True):
            if options.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            row = measure(*case, device=options.device, compiled=compiled)
            found.setdefault(name, []).append(row)
            how = f"compiled in {row['compiling']:.0f} s" if compiled else "eager"
            print(
                f"{name:5} {how:18}"
                f" {row['images_per_second']:8.0f} images/s {row['tflops']:6.1f} TFLOP/s"
                f"  {row['share']:5.1%} of the matmul rate  {row['gib']:.1f} GiB",
                flush=True,
            )
            if options.json:
                options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
