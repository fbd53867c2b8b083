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
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as Pillow
from torch import Tensor

from openjepa.core.fileio import write_text
from openjepa.evaluation.evaluator import SplitFeatures
from openjepa.evaluation.features import baseline_features, raw_values
from openjepa.evaluation.labeled import Split, split_labeled
from openjepa.evaluation.measure import probe_input, split_features_of
from openjepa.evaluation.probes.knn import knn_predict
from openjepa.evaluation.probes.lowshot import Answer, LabelSubsets, lowshot_scores
from openjepa.evaluation.probing import create_probes, run_probes
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.interop.pretrained import PretrainedEncoder, load_run
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.recipes.image_methods import ENCODER, PREDICTOR, TARGETS
from openjepa.recipes.sar import sar_small
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
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


def oriented_gradients(images: Tensor, cell: int = 8, directions: int = 9) -> Tensor:
    """Return histograms of gradient directions (HOG) of cells, normalized in blocks of 2×2 cells."""
    down, across = torch.gradient(images.float().mean(1), dim=(1, 2))
    direction = (torch.atan2(down, across) % math.pi / math.pi * directions).long() % directions
    votes = F.one_hot(direction, directions) * torch.hypot(down, across)[..., None]
    cells = F.avg_pool2d(votes.permute(0, 3, 1, 2), cell)
    return F.normalize(F.unfold(cells, 2), dim=1).flatten(1)


def measure(name: str, split: Split, features: SplitFeatures, settings: ProbeSettings) -> dict:
    """Return the scores of some features, also of the nearest neighbor on few labels, and the recall by class."""

    def nearest(part: SplitFeatures) -> Answer:
        x, y, test = part.train["last"], part.train.y, part.test["last"]
        return lambda rows: knn_predict(x[rows], y[rows], test, len(split.train.classes), k=1)

    subject = probe_input(name, split, features, settings)
    scores = [result.score for result in run_probes(subject, create_probes(settings))]
    scores += lowshot_scores(subject, "1-NN", nearest, LabelSubsets(SHOTS, settings.repeats, settings.seed), {})
    evidence = subject.evidence["logistic"]
    hits = torch.bincount(evidence.truth[evidence.predicted == evidence.truth], minlength=subject.classes)
    recall = 100 * hits / torch.bincount(evidence.truth, minlength=subject.classes)
    return {
        "scores": {score.metric: score.value for score in scores},
        "recall": dict(zip(split.train.classes, recall.tolist(), strict=True)),
    }


def measure_baselines(encoder: PretrainedEncoder, settings: ProbeSettings, file: Path) -> dict[str, dict]:
    """Return what raw pixels, gradient histograms and the encoder before training reach."""
    if not file.exists():
        split = split_labeled(encoder.data, settings.data, settings.seed)
        baselines = {"raw pixels": raw_values, "HOG": oriented_gradients}
        results = {}
        for name, compute in baselines.items():
            train, test = (baseline_features(part, compute) for part in split[:2])
            results[name] = measure(name, split, SplitFeatures(train, test), settings)
        assert encoder.untrained is not None
        results["before training"] = measure_encoder(encoder.untrained(), settings)
        write_text(file, json.dumps(results, indent=1))
    return json.loads(file.read_text(encoding="utf-8"))


def measure_encoder(encoder: PretrainedEncoder, settings: ProbeSettings) -> dict:
    """Return what the features of an encoder reach."""
    split, features = split_features_of(encoder, settings, create_probes(settings), choose_device("cpu"))
    return measure(encoder.name, split, features, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of SAR-ACD with labels.csv")
    parser.add_argument("--out", type=Path, default=Path("runs/sar"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--targets", nargs="+", help="names of what to predict; default: all")
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
            if options.targets and name not in options.targets:
                continue
            folder = out / f"run{number}-seed{seed}"
            settings = dataclasses.replace(
                settings, steps=options.steps, out=folder, seed=seed, threads=1, workers=0, resume="if-any"
            )
            if not (folder / "export" / "config.json").exists():
                pretrain(settings)
            file = folder / "scores.json"
            if not file.exists():
                write_text(file, json.dumps(measure_encoder(load_run(folder), probes), indent=1))
            results.setdefault(name, []).append(json.loads(file.read_text(encoding="utf-8")))
            for baseline, scores in measure_baselines(load_run(folder), probes, out / "baselines.json").items():
                results.setdefault(baseline, [scores])
    print_table(results, "scores")
    print("\nRecall by class, logistic regression on all training chips\n")
    print_table(results, "recall")


def print_table(results: dict[str, list[dict]], part: str) -> None:
    """Print the mean over seeds, and each seed."""
    columns = list(next(iter(results.values()))[0][part])
    print("| features | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for name, seeds in results.items():
        cells = []
        for column in columns:
            values = [each[part][column] for each in seeds]
            every = f" ({', '.join(f'{value:.1f}' for value in values)})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{every}")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
