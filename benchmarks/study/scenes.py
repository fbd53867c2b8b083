"""The demo's scenes, on one core: its own run, or an opponent's recipe.

    python benchmarks/study/scenes.py --method jepa --steps 3520 --out runs/scenes-jepa
    python benchmarks/study/scenes.py --method mae --steps 3600 --out runs/scenes-mae
    python benchmarks/study/scenes.py --seed 7 --method vicreg --steps 2400 --out runs/scenes-vicreg
    python benchmarks/study/scenes.py --seed 7 --method mae --matrices muon --lr 4e-3 --steps 3150 --out runs/scenes-mae-muon
    python benchmarks/study/scenes.py --hidden 0.6 --time

Scenes, probes and baselines are those of `jepa demo`; called again, it goes on with the run.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from openjepa.cli.demo import HELD_OUT, SIDE, Demo, demo_config, measure_features, print_accuracies, render_scenes
from openjepa.cli.pretrain import pretrain
from openjepa.data.synthetic.scenes import Scenes, render
from openjepa.interop.pretrained import load_run
from openjepa.recipes.registry import load_recipe
from openjepa.training.budget import time_step
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.setup import prepare_data


def changed(base: Pretrain, method: str) -> Pretrain:
    """The demo's run, or the same with the objective of an opponent's recipe."""
    if method == "jepa":
        return base
    own = load_recipe(f"{method}-cifar10")
    data = dataclasses.replace(base.data, flip=method == "vicreg")  # as their recipes have it
    opponent = {"method": own.method, "masks": own.masks, "optim": own.optim, "batch_size": own.batch_size}
    return dataclasses.replace(base, data=data, **opponent)


def given(**settings: Any) -> dict[str, Any]:
    """Those that were typed."""
    return {name: value for name, value in settings.items() if value is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", choices=("jepa", "mae", "vicreg"), default="jepa")
    parser.add_argument("--steps", type=int, default=3520)
    parser.add_argument("--every", type=int, help="of jepa: features at every n-th place asked for")
    parser.add_argument("--pixels", type=float, help="of jepa: how heavy pixels are")
    parser.add_argument("--hidden", type=float, help="of any: share of a scene that is hidden")
    parser.add_argument("--no-centre", action="store_true", help="of jepa: targets with their image's mean")
    parser.add_argument("--batch", type=int, help="of any: scenes in a step")
    parser.add_argument("--lr", type=float, help="of any: learning rate")
    parser.add_argument("--matrices", choices=("adamw", "muon"), help="of any: what moves blocks' matrices")
    parser.add_argument(
        "--recent", type=float, help="of jepa: share of the steps so far that the average spans at most"
    )
    parser.add_argument("--momentum", type=float, help="of jepa: of the average as it begins")
    parser.add_argument("--time", action="store_true", help="say how long a step takes, and leave")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/scenes"))
    options = parser.parse_args()
    retain_freed_memory()  # as `jepa` does
    demo = Demo(out=options.out, seed=options.seed)
    train = render_scenes(options.out / "scenes", demo)
    config = demo_config(demo, options.out / "scenes")
    turned = given(
        target_stride=options.every, pixel_loss_weight=options.pixels, center=False if options.no_centre else None
    )
    method = dataclasses.replace(config.method, **turned)
    config = changed(dataclasses.replace(config, method=method), options.method)
    if options.hidden:
        config = dataclasses.replace(config, masks=dataclasses.replace(config.masks, mask_ratio=options.hidden))
    turned = given(**{name: getattr(options, name) for name in ("lr", "recent", "momentum", "matrices")})
    optim = dataclasses.replace(config.optim, **turned)
    config = dataclasses.replace(config, optim=optim, batch_size=options.batch or config.batch_size)
    config = dataclasses.replace(config, steps=options.steps, threads=1, resume="if-any")
    if options.time:
        torch.set_num_threads(1)
        where = choose_device("cpu", config.precision)
        data, config = prepare_data(config, where, config.data.listing(), options.out / "data")
        paces = [time_step(config, data, where).step for _ in range(4)]
        return print(f"{1000 * min(paces):.0f} ms a step, the least of {[round(1000 * each) for each in paces]}")
    run = pretrain(config)
    side = (SIDE, SIDE)
    test = render(demo.test, side, demo.seed, first=HELD_OUT)
    labelled = Scenes(*(part[: demo.labelled] for part in train))
    print_accuracies(measure_features(load_run(run / "export"), labelled, test, demo.seed))


if __name__ == "__main__":
    main()
