"""From sound to pictures: does a teacher that hears spoken digits help an encoder of noisy written ones (JEP-KD)?

    jepa pretrain audio-small --data.root audio/wav --data.rate 8000 --out runs/teacher --threads 1 --steps 1000
    python -m studies.audio.distill --sounds audio/wav --teacher runs/teacher --out runs/distill

The pictures are scikit-learn's 1,797 handwritten digits of 8×8 pixels with Gaussian noise. 500 of them are paired with
recordings of the same digit, without labels; the others are for testing. With 5 and 10 labels a class, drawn 20 times
from the 500, logistic regression reads: pixels, an encoder before training, one that learned from the pictures alone
(VICReg), the generated embeddings (JEP-KD), also of an encoder that started from VICReg, both also with shuffled pairs,
and an encoder before training whose probe is trained on hard predictions, which a probe of the teacher with the same
labels makes for all 500 pairs. Differences are paired by draw, with Student's 95 % interval. Prints a table and writes
results.json.

The encoder sees a picture as one patch, so it is an MLP. Sizes, steps and crops were chosen with 400 of the pairs to
train on and the labels of the other 100.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from openjepa.core.fileio import write_text
from openjepa.core.tables import print_table
from openjepa.evaluation.probes.logistic import fit_logistic
from openjepa.interop.pretrained import PretrainedEncoder, load_run, untrained_encoder
from openjepa.methods.distill import Distill
from openjepa.methods.jepa import JEPA
from openjepa.methods.vicreg import VICReg
from openjepa.modalities.image import Image
from openjepa.modalities.pair import Pair
from openjepa.nn.expander import ExpanderConfig
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.recipes.image_small import tune_for_minutes
from openjepa.training.config import Pretrain
from openjepa.training.run import pretrain

PAIRS, DRAWS, LABELS = 500, 20, (5, 10)

NOISE = 6.0  # standard deviation, of pixels from 0 to 16

STRENGTH = 1e-2  # of the probes' regularization, the same for all

STUDENT_T = 2.093  # quantile 97.5 % of Student's distribution with 19 degrees of freedom

PICTURE = Image(size=(8, 8), patch=8, channels=1, crop_scale=(0.7, 1.0))

ENCODER = ViTConfig(dim=128, depth=2, num_heads=4, init="scaled", stem_init="scaled")


class Digits(NamedTuple):
    """Pictures in files, their classes, and which are for testing."""

    files: list[str]
    label: Tensor
    paired: int  # the first so many are paired, the others test


def write_digits(folder: Path) -> Digits:
    """Write the noisy pictures as PNG files, in a random order."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(digits.target))
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, row in enumerate(order):
        noisy = digits.images[row] + rng.normal(0, NOISE, (8, 8))
        file = folder / f"{number:04d}.png"
        Pillow.fromarray((noisy.clip(0, 16) / 16 * 255).astype(np.uint8)).save(file)
        files.append(str(file))
    return Digits(files, torch.from_numpy(digits.target[order]).long(), PAIRS)


def write_pairs(digits: Digits, sounds: Path, file: Path, shuffled: bool) -> list[str]:
    """Write the table that pairs each picture with a recording of the same digit, or of any; return the recordings."""
    rng, recordings = np.random.default_rng(1), sorted(sounds.glob("*.wav"))
    by_digit = {digit: rng.permutation([str(each) for each in recordings if each.name[0] == str(digit)]).tolist()
                for digit in range(10)}  # fmt: skip
    chosen = [by_digit[int(label)].pop() for label in digits.label[: digits.paired]]
    if shuffled:
        chosen = rng.permutation(chosen).tolist()
    lines = [
        f"{Path(picture).resolve()},{Path(sound).resolve()}"
        for picture, sound in zip(digits.files, chosen, strict=False)
    ]
    write_text(file, "\n".join(["first,second", *lines]) + "\n")
    return chosen


def distill(
    teacher: Path, table: Path, out: Path, steps: int, seed: int, start: Path | None = None
) -> PretrainedEncoder:
    """Train an encoder of pictures, from the weights of a run if there is one, to generate the teacher's embeddings."""
    second, width = load_run(teacher).data, load_run(teacher).config.method.encoder.dim
    data = Pair(root=(str(table),), first=PICTURE, second=dataclasses.replace(second, root=()))
    base = with_muon(tune_for_minutes(Pretrain(PICTURE), JEPA(ENCODER)))
    method = Distill(ENCODER, teacher=str(teacher), predictor=PredictorConfig(48, 2, init="scaled"), teacher_dim=width)
    settings = dataclasses.replace(base, data=data, method=method, init_from=start)
    return load_run(pretrain(dataclasses.replace(settings, **run_settings(out, steps, seed))))


def learn_alone(table: Path, out: Path, steps: int, seed: int) -> PretrainedEncoder:
    """Train an encoder on the same pictures by joint embedding: two crops of one get the same vector."""
    files = [line.split(",")[0] for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    names = out.with_suffix(".txt")
    write_text(names, "\n".join(files) + "\n")
    data = dataclasses.replace(PICTURE, root=(str(names),))
    base = with_muon(tune_for_minutes(Pretrain(data), JEPA(ENCODER)))
    method = VICReg(ENCODER, ExpanderConfig(dim=256))
    return load_run(pretrain(dataclasses.replace(base, method=method, **run_settings(out, steps, seed))))


def with_muon(base: Pretrain) -> Pretrain:
    """Return the settings with the optimizer of the small recipes."""
    return dataclasses.replace(base, optim=dataclasses.replace(base.optim, optimizer="muon", lr=2e-3))


def run_settings(out: Path, steps: int, seed: int) -> dict:
    """Return what all runs share."""
    return {"out": out, "steps": steps, "seed": seed, "batch_size": 64, "threads": 1, "workers": 0, "report": False,
            "device": "cpu", "resume": "if-any"}  # fmt: skip


@torch.no_grad()
def features_of(encoder: PretrainedEncoder, files: list[str]) -> Tensor:
    """Return the pooled features of files."""
    return encoder.features(files).cpu()


def draw_rows(label: Tensor, count: int, draw: int) -> Tensor:
    """Return the rows of `count` samples of each class."""
    rng = np.random.default_rng(100 + draw)
    rows = [rng.permutation(np.flatnonzero(label.numpy() == digit))[:count] for digit in range(10)]
    return torch.from_numpy(np.concatenate(rows))


def accuracy(train: Tensor, label: Tensor, test: Tensor, truth: Tensor) -> float:
    """Return the accuracy of logistic regression in percent."""
    return 100 * (fit_logistic(train, label, 10, STRENGTH).predict(test) == truth).float().mean().item()


def measure(features: dict[str, Tensor], sounds: Tensor, digits: Digits) -> dict[str, dict[str, list[float]]]:
    """Return the accuracies of every draw, by features and labels a class."""
    label, truth = digits.label[: digits.paired], digits.label[digits.paired :]
    results: dict[str, dict[str, list[float]]] = {}
    for count in LABELS:
        for draw in range(DRAWS):
            rows = draw_rows(label, count, draw)
            for name, x in features.items():
                value = accuracy(x[rows], label[rows], x[digits.paired :], truth)
                results.setdefault(name, {}).setdefault(str(count), []).append(value)
            guesses = fit_logistic(sounds[rows], label[rows], 10, STRENGTH).predict(sounds)
            x = features["before training"]
            value = accuracy(x[: digits.paired], guesses, x[digits.paired :], truth)
            results.setdefault("hard predictions", {}).setdefault(str(count), []).append(value)
            right = 100 * (guesses == label).float().mean().item()
            results.setdefault("the teacher, on sounds", {}).setdefault(str(count), []).append(right)
    return results


def difference(values: list[float], others: list[float]) -> str:
    """Return the mean difference, paired by draw, with its interval."""
    each = np.array(values) - np.array(others)
    half = STUDENT_T * each.std(ddof=1) / np.sqrt(len(each))
    return f"{each.mean():+.1f} ± {half:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sounds", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    digits = write_digits(options.out / "pictures")
    tables = {name: options.out / f"{name.replace(' ', '-')}.csv" for name in ("pairs", "shuffled pairs")}
    partners = {name: write_pairs(digits, options.sounds, table, name != "pairs") for name, table in tables.items()}
    runs = {"JEP-KD": "pairs", "JEP-KD, shuffled pairs": "shuffled pairs"}
    encoders = {}
    for name, pairs in runs.items():
        out = options.out / f"{tables[pairs].stem}-{options.seed}"
        encoders[name] = distill(options.teacher, tables[pairs], out, options.steps, options.seed)
    folder = options.out / f"alone-{options.seed}"
    alone = learn_alone(tables["pairs"], folder, options.steps, options.seed)
    for name, pairs in runs.items():
        out = options.out / f"{tables[pairs].stem}-after-alone-{options.seed}"
        encoders[f"{name}, from VICReg"] = distill(
            options.teacher, tables[pairs], out, options.steps, options.seed, folder
        )
    encoders |= {"pictures alone (VICReg)": alone, "before training": untrained_encoder(alone.config)}
    features = {name: features_of(encoder, digits.files) for name, encoder in encoders.items()}
    features["pixels"] = torch.stack([alone.data.read(file).float().flatten() for file in digits.files])
    teacher = load_run(options.teacher)  # whose mean over all patches is what the student generates
    teacher = dataclasses.replace(teacher, modality=dataclasses.replace(teacher.data, pooling="mean"))
    results = measure(features, features_of(teacher, partners["pairs"]), digits)
    write_text(options.out / f"results-{options.seed}.json", json.dumps(results, indent=1))
    rows = []
    for name, values in results.items():
        cells = [f"{np.mean(values[str(count)]):.1f}" for count in LABELS]
        gains = [difference(results["JEP-KD"][str(count)], values[str(count)]) for count in LABELS]
        rows.append((name, *cells, *gains))
    header = ("features", *(f"{count} labels" for count in LABELS), *(f"JEP-KD above it, {count}" for count in LABELS))
    print_table(header, rows, f"accuracy in % on {len(digits.files) - PAIRS:,} other pictures, {DRAWS} draws of labels")


if __name__ == "__main__":
    main()
