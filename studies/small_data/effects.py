"""Rank what each change of a recipe is worth: the difference to a reference arm, with an interval.

    python studies/small_data/run.py --data cifar10/train --steps 847 --seeds 0 1 --arms muon "muon, no pixels" …
    python studies/small_data/effects.py runs/study/847steps --reference muon

Differences are in points of accuracy on held-out images, the mean over the seeds that both arms have. In brackets is
the middle 95 % over the images, which are the same for both (a paired bootstrap). It does not contain the variance
over seeds, which is printed below the table if the reference has several seeds.
"""

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from openjepa.core.bootstrap import bootstrap_interval

Right = dict[str, Float[Tensor, "R"]]  # probe -> 1 where a held-out image is classified correctly


class Effect(NamedTuple):
    """Difference of one arm to the reference by one probe, in points."""

    points: float
    low: float
    high: float


def read(folder: Path) -> dict[str, dict[int, Right]]:
    """Return arm -> seed -> what its probes got right, for every finished run that stored its answers."""
    found: dict[str, dict[int, Right]] = {}
    for file in sorted(folder.glob("*/seed*/result.json")):
        result = json.loads(file.read_text())
        if "right" in result:
            found.setdefault(result["arm"], {})[result["seed"]] = {
                probe: bits(digits) for probe, digits in result["right"].items()
            }
    return found


def bits(digits: str) -> Float[Tensor, "R"]:
    """Unpack one value per sample from hexadecimal digits; the number of held-out images is a multiple of 8."""
    return torch.from_numpy(np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))).float()


def effect(arm: dict[int, Right], reference: dict[int, Right], probe: str) -> Effect:
    """Return the mean difference over the seeds that both have."""
    seeds = arm.keys() & reference.keys()
    gained = 100 * torch.stack([arm[seed][probe] - reference[seed][probe] for seed in seeds]).mean(0)
    return Effect(gained.mean().item(), *bootstrap_interval(gained))


def spread(reference: dict[int, Right], probe: str) -> float:
    """Return the points by which two seeds of an arm differ, averaged over all pairs of seeds."""
    scores = [100 * each[probe].mean().item() for each in reference.values()]
    return statistics.mean(abs(a - b) for a, b in itertools.combinations(scores, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="runs of equal length that run.py wrote: runs/study/847steps")
    parser.add_argument("--reference", default="muon")
    options = parser.parse_args()
    found = read(options.folder)
    if options.reference not in found:
        sys.exit(
            f"{options.folder} has no finished run of {options.reference}: run run.py for it first; "
            f"found: {', '.join(found) or 'no runs'}"
        )
    reference = found.pop(options.reference)
    probes = list(next(iter(reference.values())))
    comparable = {name: arm for name, arm in found.items() if arm.keys() & reference.keys()}
    effects = {name: [effect(arm, reference, probe) for probe in probes] for name, arm in comparable.items()}

    print("| arm | seeds | " + " | ".join(probes) + " | mean |")
    print("|---" * (len(probes) + 3) + "|")
    ranked = sorted(effects, key=lambda name: -statistics.mean(each.points for each in effects[name]))
    for name in ranked:
        cells = [f"{each.points:+.1f} ({each.low:+.1f} to {each.high:+.1f})" for each in effects[name]]
        mean = statistics.mean(each.points for each in effects[name])
        print(
            f"| {name} | {len(comparable[name].keys() & reference.keys())} | " + " | ".join(cells) + f" | {mean:+.1f} |"
        )
    if len(reference) > 1:
        seeds = ", ".join(f"{probe} {spread(reference, probe):.1f}" for probe in probes)
        print(f"\nTwo seeds of {options.reference} differ by, in points: {seeds}")


if __name__ == "__main__":
    main()
