"""Find the size, batch and learning rate that learn most on CIFAR-10 in the same minutes of a GPU.

    python benchmarks/gpu/choose.py --data cifar10/ --json choose.json

All runs start at once, so that each has the same share of the card; the best one is then measured by cifar10.py.
Probes train on four fifths of the training images and are measured on the others; the test images are not used.
`--data` holds train/ with a folder per class.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.gpu.cifar10 import started
from openjepa.cli.probe import probe
from openjepa.cli.settings import Probe
from openjepa.evaluation.settings import LabeledData

WIDE = "--method.encoder.dim 384 --method.encoder.num-heads 6 --method.predictor.dim 192"
CANDIDATES = {  # settings on top of --recipe and --batch-size
    "192×6": "",
    "192×6, 4 times the images a step": "--batch-size 2048 --optim.lr 6e-3",
    "384×6": WIDE,
    "384×6, twice the rate": f"{WIDE} --optim.lr 6e-3",
    "384×12": f"{WIDE} --method.encoder.depth 12 --method.target-layers 6 7 8 9 10 11",
    "384×6, the paper's blocks": (f"{WIDE} --masks multiblock --method.target-input whole --method.target-stride 1"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="cifar10-muon")
    parser.add_argument("--out", type=Path, default=Path("runs/choose-gpu"))
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--budget", default="5m30s", help="time of pretraining, all runs in parallel")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.data, options.out = options.data.resolve(), options.out.resolve()

    folders = {name: options.out / str(number) for number, name in enumerate(options.only)}
    running = {
        name: started(folder, 0, len(folders), options, CANDIDATES[name].split()) for name, folder in folders.items()
    }
    failed = [name for name, run in running.items() if run.wait()]
    found = {}
    for name, folder in folders.items():
        if name not in failed:
            labeled = LabeledData((str(options.data / "train"),))
            scores = probe(Probe(run=str(folder), data=labeled, device=options.device, baselines=False))
            steps = json.loads((folder / "config.json").read_text())["steps"]
            found[name] = {"steps": steps, **{score.probe: 100 * score.accuracy for score in scores}}
    for name, row in found.items():
        cells = "  ".join(f"{probe} {value:.1f}" for probe, value in row.items() if probe != "steps")
        print(f"{name:48} {row['steps']:7,} steps  {cells}")
    if options.json:
        options.json.write_text(json.dumps({**vars(options), "scores": found}, indent=1, default=str))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
