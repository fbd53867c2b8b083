"""Train on the demo's scenes on one core: the demo's own run, or the recipe of another method.

    python studies/small_data/scenes.py --method jepa --steps 3520 --out runs/scenes-jepa
    python studies/small_data/scenes.py --method mae --steps 3600 --out runs/scenes-mae
    python studies/small_data/scenes.py --seed 7 --method vicreg --steps 2400 --out runs/scenes-vicreg
    python studies/small_data/scenes.py --method mae --optimizer muon --lr 4e-3 --steps 3150 --out runs/mae-muon
    python studies/small_data/scenes.py --mask-ratio 0.6 --time

Scenes, probes and baselines are those of `jepa demo`; a second call resumes the run.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from openjepa.cli.demos.scenes import DEFAULTS, HELD_OUT, SIDE, demo_config, measure_features, render_scenes
from openjepa.cli.pretrain import pretrain
from openjepa.cli.settings import Demo
from openjepa.data.synthetic.scenes import Scenes, render
from openjepa.evaluation.scores import print_scores
from openjepa.interop.pretrained import load_run
from openjepa.recipes.registry import load_recipe
from openjepa.training.budget import time_step
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.setup import prepare_data


def change_method(base: Pretrain, method: str) -> Pretrain:
    """Return the demo's run, or the same with the objective of another method's recipe."""
    if method == "jepa":
        return base
    own = load_recipe(f"{method}-cifar10")
    data = dataclasses.replace(base.data, flip=method == "vicreg")  # as their recipes have it
    opponent = {"method": own.method, "masks": own.masks, "optim": own.optim, "batch_size": own.batch_size}
    return dataclasses.replace(base, data=data, **opponent)


def without_none(**settings: Any) -> dict[str, Any]:
    """Return the settings that the user typed."""
    return {name: value for name, value in settings.items() if value is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", choices=("jepa", "mae", "vicreg"), default="jepa")
    parser.add_argument("--steps", type=int, default=3520)
    parser.add_argument("--target-stride", type=int, help="jepa: predict features at every n-th target token")
    parser.add_argument("--pixel-loss-weight", type=float, help="jepa: weight of the pixel loss")
    parser.add_argument("--mask-ratio", type=float, help="fraction of the tokens of a scene that are hidden")
    parser.add_argument(
        "--no-center", action="store_true", help="jepa: do not subtract each image's mean from its targets"
    )
    parser.add_argument("--batch-size", type=int, help="scenes per step")
    parser.add_argument("--lr", type=float, help="learning rate")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), help="optimizer of the matrices of blocks")
    parser.add_argument(
        "--ema-rampup", type=float, help="jepa: cap the EMA's horizon at this fraction of the steps so far"
    )
    parser.add_argument("--ema-momentum", type=float, help="jepa: EMA momentum at the start")
    parser.add_argument("--time", action="store_true", help="print how long a step takes, and exit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/scenes"))
    options = parser.parse_args()
    retain_freed_memory()  # as `jepa` does
    demo = Demo(out=options.out, seed=options.seed).with_defaults(DEFAULTS)
    train = render_scenes(options.out / "scenes", demo)
    config = demo_config(demo, options.out / "scenes")
    typed = without_none(
        target_stride=options.target_stride,
        pixel_loss_weight=options.pixel_loss_weight,
        target_transforms=("standardize",) if options.no_center else None,
    )
    method = dataclasses.replace(config.method, **typed)
    config = change_method(dataclasses.replace(config, method=method), options.method)
    if options.mask_ratio:
        config = dataclasses.replace(config, masks=dataclasses.replace(config.masks, mask_ratio=options.mask_ratio))
    typed = without_none(**{name: getattr(options, name) for name in ("lr", "ema_rampup", "ema_momentum", "optimizer")})
    optim = dataclasses.replace(config.optim, **typed)
    config = dataclasses.replace(config, optim=optim, batch_size=options.batch_size or config.batch_size)
    config = dataclasses.replace(config, steps=options.steps, threads=1, resume="if-any")
    if options.time:
        torch.set_num_threads(1)
        device = choose_device("cpu", config.precision)
        data, config = prepare_data(config, device, config.data.listing(), options.out / "data")
        seconds = [time_step(config, data, device).step_seconds for _ in range(4)]
        return print(f"{1000 * min(seconds):.0f} ms a step, the least of {[round(1000 * each) for each in seconds]}")
    run = pretrain(config)
    side = (SIDE, SIDE)
    test = render(demo.test, side, demo.seed, first=HELD_OUT)
    labeled = Scenes(*(part[: demo.labeled] for part in train))
    print_scores(measure_features(load_run(run / "export"), labeled, test, demo.seed), "held-out scenes")


if __name__ == "__main__":
    main()
