"""Measure anomaly scores on synthetic faults of a machine, beside Mahalanobis distances without an encoder.

    python -m studies.audio.anomalies --out runs/machines

Trains on normal sounds alone, then scores other normal sounds and five faults: strokes that are skipped, that rattle,
that are uneven, that ring lower, and a squeal.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from openjepa.cli.anomalies import anomalies
from openjepa.cli.settings import Anomalies
from openjepa.data.synthetic.machines import FAULTS, write_machines
from openjepa.modalities.audio import Audio
from openjepa.recipes.audio import tune_for_audio
from openjepa.training.run import pretrain

RATE, SECONDS = 8000, 1.92

NORMAL, TESTED = 2000, 200  # sounds to train on, and of each kind to score


@dataclass(frozen=True)
class Study:
    """Train and score. A second call uses the run and the sounds of the first."""

    out: Path  # folder of the sounds, the run and the scores
    budget: str = "5m"  # of training
    seed: int = 0


def main(study: Study) -> None:
    """Render the sounds, train, and print the AUROC of every score over all faults and for each of them."""
    samples, seed = int(RATE * SECONDS), study.seed
    normal, tested = study.out / "normal", study.out / "tested"
    if not tested.exists():
        write_machines(normal, torch.zeros(NORMAL, dtype=torch.long), RATE, samples, seed)
        kinds = torch.arange(len(FAULTS)).repeat_interleave(TESTED)
        write_machines(tested, kinds, RATE, samples, seed, NORMAL)
    config = tune_for_audio(Audio((str(normal),), rate=RATE, frames=192, normalize="stretch", floor=60.0))
    run = study.out / f"run-{seed}"
    pretrain(
        dataclasses.replace(
            config, budget=study.budget, out=run, seed=seed, threads=1, report=False, resume="if-any", device="cpu"
        )
    )
    score(run, tested, normal, study.out / f"all-{seed}")
    for fault in FAULTS[1:]:
        listing = study.out / f"{fault}.txt"
        files = sorted([*(tested / "none").iterdir(), *(tested / fault).iterdir()])
        listing.write_text("\n".join(map(str, files)) + "\n")
        score(run, listing, normal, study.out / f"{fault}-{seed}")


def score(run: Path, files: Path, normal: Path, out: Path) -> None:
    """Score files and print how well each score tells those without a fault from the others."""
    print(files.stem)
    settings = Anomalies(run=str(run), files=str(files), normal=(str(normal),), good="none", out=out)
    anomalies(settings)


if __name__ == "__main__":
    main(tyro.cli(Study))
