"""Few-shot recognition of aircraft in radar chips: gradients as targets, pixels, features, and baselines.

    python -m studies.images.sar --data sar --out runs/sar

The labels.csv of SAR-ACD has a group for each chip (flipped and turned copies). Chips that also occur in another class
are dropped. A third of the groups of each class are for testing; nothing is trained on them. Each encoder is trained on
the other chips, without labels, and measured with 10 and 40 labels a class, drawn from different groups. With --looks
the chips are multiplied by speckle (gamma-distributed, of so many looks) before everything. Prints a table.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow

from openjepa.core.fileio import write_text
from openjepa.evaluation.measure import measure_encoders
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.interop.pretrained import load_run
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.recipes.image_methods import ENCODER, PREDICTOR, TARGETS
from openjepa.recipes.sar import sar_small
from openjepa.training.config import Pretrain
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.run import pretrain

SIDE = 64  # pixels
SHOTS = (10.0, 40.0)


def write_chips(source: Path, out: Path, looks: int) -> Path:
    """Write the chips as PNG files of one size, with a table of class, split and group."""
    table = out / "labels.csv"
    if table.exists():
        return table
    rows = [
        row
        for row in csv.DictReader((source / "labels.csv").open(encoding="utf-8"))
        if row["also_in_other_class"] == "0"
    ]
    generator = np.random.default_rng(0)
    tested = {
        group
        for name in sorted({row["class"] for row in rows})
        for group in every_third(sorted({row["group"] for row in rows if row["class"] == name}, key=int), generator)
    }
    out.mkdir(parents=True, exist_ok=True)
    lines = ["file,class,split,group"]
    for row in rows:
        split = "test" if row["group"] in tested else "train"
        name = f"{split}/{row['class']}/{Path(row['file']).stem}.png"
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        chip = Pillow.open(source / row["file"]).convert("L").resize((SIDE, SIDE), Pillow.Resampling.BILINEAR)
        values = np.asarray(chip, np.float64)
        if looks:
            values = values * generator.gamma(looks, 1 / looks, values.shape)
        Pillow.fromarray(values.round().clip(0, 255).astype(np.uint8)).save(out / name)
        lines.append(f"{name},{row['class']},{split},{row['group']}")
    write_text(table, "\n".join(lines) + "\n")  # last, so that a killed call begins again
    return table


def every_third(groups: list[str], generator: np.random.Generator) -> list[str]:
    """Return a random third of the groups."""
    return [groups[number] for number in generator.permutation(len(groups))[: len(groups) // 3]]


def runs(chips: Path) -> dict[str, Pretrain]:
    """Return what is compared: the same encoder, masks and schedule, with other targets."""
    base = sar_small()
    data, sar = dataclasses.replace(base.data, root=(str(chips / "train"),)), base.method
    methods = {
        "gradients": sar,
        "gradients, mask tokens in the encoder": dataclasses.replace(sar, encoder_input="masked"),
        "pixels": MAE(ENCODER, PREDICTOR, normalize_targets=False),
        "normalized pixels": MAE(ENCODER, PREDICTOR),
        "features (I-JEPA)": JEPA(ENCODER, PREDICTOR, **TARGETS),
    }
    return {name: dataclasses.replace(base, data=data, method=method) for name, method in methods.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of SAR-ACD with labels.csv")
    parser.add_argument("--out", type=Path, default=Path("runs/sar"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--looks", type=int, default=0, help="of added speckle; 0: none")
    options = parser.parse_args()
    retain_freed_memory()  # as `jepa` does
    torch.set_num_threads(1)
    out = options.out / f"looks{options.looks}"
    table = write_chips(options.data, out / "chips", options.looks)
    labeled = LabeledData(
        root=(str(table.parent),), labels=str(table), label="class", group="group", eval_crop="squash"
    )
    probes = ProbeSettings(data=labeled, probes=("lowshot", "logistic", "knn"), shots=SHOTS, repeats=10)
    results: dict[str, list[dict]] = {}
    for seed in options.seeds:
        for number, (name, settings) in enumerate(runs(table.parent).items()):
            folder = out / f"run{number}-seed{seed}"
            if not (folder / "export" / "config.json").exists():
                pretrain(
                    dataclasses.replace(
                        settings, steps=options.steps, out=folder, seed=seed, threads=1, workers=0, resume="if-any"
                    )
                )
            file = folder / "scores.json"
            if not file.exists():
                encoder = dataclasses.replace(load_run(folder), name=name)
                first = number == 0
                compared = [encoder, encoder.untrained()] if first and encoder.untrained else [encoder]
                measurement = measure_encoders(compared, probes, pixels=first)
                assert measurement is not None
                scores = [result.score._asdict() for result in measurement.results]
                write_text(file, json.dumps(scores, indent=1))
            for score in json.loads(file.read_text(encoding="utf-8")):
                results.setdefault(score["features"], []).append(score)
    print_results(results)


def print_results(results: dict[str, list[dict]]) -> None:
    """Print the mean of each metric over seeds."""
    metrics = list(dict.fromkeys(score["metric"] for scores in results.values() for score in scores))
    print("| features | " + " | ".join(metrics) + " |\n" + "|---" * (len(metrics) + 1) + "|")
    for name, scores in results.items():
        cells = []
        for metric in metrics:
            values = [score["value"] for score in scores if score["metric"] == metric]
            cells.append(f"{np.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})" if values else "")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
