"""The recipe `cifar10` on a GPU, then its probe.

    python benchmarks/gpu/cifar10.py --data cifar10/ --json cifar10.json

`--data` holds train/ and test/ with a folder for each class. `--out` is the run's folder.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from openjepa import recipes
from openjepa.evaluate.labelled import Labelled
from openjepa.evaluate.probing import Probe, probe
from openjepa.runs import pretrain


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10-gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = recipes.recipe("cifar10")
    data = dataclasses.replace(config.data, root=(str(options.data / "train"),))
    began = time.perf_counter()
    pretrain(dataclasses.replace(config, data=data, out=options.out, device=options.device, steps=options.steps))
    minutes = (time.perf_counter() - began) / 60
    scores = probe(Probe(run=str(options.out), data=Labelled((str(options.data),)), device=options.device))
    print(f"{minutes:.1f} minutes of pretraining")
    if options.json:
        options.json.write_text(
            json.dumps({"minutes": minutes, "scores": [score._asdict() for score in scores]}, indent=1)
        )


if __name__ == "__main__":
    main()
