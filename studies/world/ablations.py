"""Which terms of a world model's loss does planning need?

    python studies/world/ablations.py --out runs/ablations --share 0 2 &
    python studies/world/ablations.py --out runs/ablations --share 1 2

Each arm changes one thing of the world model of `world-rooms` in two rooms. All arms train for the same number of
steps, with the same seed; then a locator is trained on those with maps. The columns are those of `jepa diagnose`, on
layouts that never occur in training: errors of probes, imagined positions, porosity, and success of planning with the
learned dynamics and the shortest way from decoded positions. Finished runs are kept: call it again to resume, or to see
the table. `--share 0 2` does the first half of the arms.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from openjepa.cli.pretrain import pretrain
from openjepa.core.tables import print_table
from openjepa.methods.world_model import WorldModel
from openjepa.nn.convnet import ConvNetConfig
from openjepa.planning.comparison import run_exact_values
from openjepa.planning.diagnosis import diagnose_world
from openjepa.planning.envs.rooms import draw_tasks
from openjepa.planning.systems import load_room_system
from openjepa.recipes.world_rooms import rooms_stages
from openjepa.training.config import Pretrain
from openjepa.training.stages import Stages, run_stages

STEPS = (1500, 800)  # of world model and locator

TASKS, SEED = 50, 0

VECTOR = ConvNetConfig(dim=128, latent="vector")

ARMS: dict[str, dict[str, Any]] = {
    "reference": {},
    "no inverse dynamics": {"inverse": 0.0},
    "no variance": {"variance": 0.0},
    "no covariance": {"covariance": 0.0},
    "no variance, no covariance": {"variance": 0.0, "covariance": 0.0},
    "with similarity": {"similarity": 1.0},
    "one step (K = 1)": {"steps": 1},
    "EMA target": {"target": "ema"},
    "EMA target alone": {"target": "ema", "variance": 0.0, "covariance": 0.0},
    "SIGReg": {"sigreg": 16.0, "variance": 0.0, "covariance": 0.0},
    "vector latent": {"encoder": VECTOR, "dynamics": "mlp"},
}


def arm_stages(change: dict[str, Any]) -> list[Pretrain]:
    """Return the world model of an arm, and its locator if its latents are maps."""
    change = dict(change)
    steps = change.pop("steps", 8)
    model = WorldModel(**change)
    world, locator, *_ = rooms_stages("two-rooms").runs
    batch = world.batch_size * 8 // steps  # as many transitions in a batch
    shared = {"seed": SEED, "threads": 1, "resume": "if-any", "report": False, "workers": 0}
    data = dataclasses.replace(world.data, steps=steps)
    stages = [dataclasses.replace(world, data=data, method=model, steps=STEPS[0], batch_size=batch, **shared)]
    if model.encoder.latent == "map":
        method = dataclasses.replace(locator.method, world=model)
        stages.append(dataclasses.replace(locator, method=method, steps=STEPS[1], **shared))
    return stages


def measure(folder: Path) -> dict[str, float]:
    """Return the columns of a trained arm."""
    system = load_room_system(str(folder))
    with torch.no_grad():
        diagnosis, decoder = diagnose_world(system.world, system.modality, system.env)
    row = run_exact_values(system, draw_tasks(system.env, TASKS, SEED), decoder, SEED)
    return {
        "position linear, px": diagnosis.linear["position"],
        "position, px": diagnosis.nonlinear["position"],
        "wall, px": diagnosis.nonlinear["wall"],
        "door, px": diagnosis.nonlinear["door"],
        "imagined 8, px": diagnosis.imagined[8],
        "imagined 16, px": diagnosis.imagined[16],
        "porosity %": 100 * diagnosis.porosity,
        "success %": 100 * row.success,
    }


def main() -> None:
    """Run the arms of this share that are not finished, and print the table of all that are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--share", type=int, nargs=2, default=(0, 1), metavar=("NUMBER", "OF"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in list(ARMS)[arguments.share[0] :: arguments.share[1]]:
        folder = arguments.out / name.replace(" ", "-").replace(",", "")
        result = folder / "result.json"
        if not result.exists():
            run_stages(Stages(tuple(arm_stages(ARMS[name]))), folder, pretrain)
            result.write_text(json.dumps(measure(folder)))
    rows = []
    for name in ARMS:
        result = arguments.out / name.replace(" ", "-").replace(",", "") / "result.json"
        if result.exists():
            rows.append((name, json.loads(result.read_text())))
    head = ("arm", *rows[0][1])
    print_table(head, [(name, *(f"{value:.2f}" for value in row.values())) for name, row in rows], "two rooms")


if __name__ == "__main__":
    main()
