"""A training step of the paper's models on one GPU in bf16: images/s, TFLOP/s, share of the measured matrix rate.

python benchmarks/gpu/step.py --json step.json        (--device cpu --tiny tries the script itself)
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from openjepa import flops, optim
from openjepa.device import place
from openjepa.draws import Draws
from openjepa.encoder import SIZES
from openjepa.machine import matrix_rate, timed
from openjepa.masking import Masking
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.training import advance
from openjepa.types import Batch

CASES = {  # size, patch, predictor depth, batch
    "S/16": ("small", 16, 6, 256),
    "B/16": ("base", 16, 6, 256),
    "L/16": ("large", 16, 12, 128),
    "H/14": ("huge", 14, 12, 128),
}


def measure(size: str, patch: int, predictor_depth: int, batch: int, pixels: int, device: str) -> dict[str, float]:
    """One model's step: the median of ten."""
    where = place(device)
    data = Image(size=(pixels, pixels), patch=patch, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    method = JEPA(**SIZES[size], predictor_dim=384, predictor_depth=predictor_depth)
    (masks,) = Masking(sampler="official").build(data.grid)(None, None, Draws.of(0, 2, np.arange(batch)), 0.0)
    view = torch.randint(0, 256, (batch, 3, pixels, pixels), dtype=torch.uint8)
    moved, masks = where.move(Batch((view,), torch.arange(batch))), where.move(masks)
    net = method.build(data).to(where.device)
    settings = optim.Optim()
    optimizer = optim.build(net, settings)

    def step() -> None:
        advance(net, optimizer, moved, (masks,), settings.at(0, 1000), where)

    for _ in range(3):
        step()
    seconds = float(np.median([timed(step, where)[1] for _ in range(10)]))
    work = batch * flops.work(method, data, flops.shapes((masks,))).total
    rate = matrix_rate(where)
    memory = torch.cuda.max_memory_allocated() / 2**30 if where.device.type == "cuda" else float("nan")
    return {
        "images_per_second": batch / seconds,
        "tflops": work / seconds / 1e12,
        "share": work / seconds / rate,
        "gib": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="one small case, to try the script without a GPU")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases = {"tiny": ("tiny", 16, 1, 4)} if options.tiny else CASES
    found = {}
    for name, case in cases.items():
        found[name] = row = measure(*case, pixels=224, device=options.device)
        print(
            f"{name:5} {row['images_per_second']:8.0f} images/s {row['tflops']:6.1f} TFLOP/s  {row['share']:5.1%} of the matrix rate  {row['gib']:.1f} GiB"
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
