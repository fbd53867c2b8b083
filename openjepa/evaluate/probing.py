"""`jepa probe`: what a linear classifier and nearest neighbours make of the features, beside honest baselines."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from rich.table import Table

from openjepa import weights
from openjepa.device import Precision, place
from openjepa.draws import order
from openjepa.evaluate import logistic, neighbours
from openjepa.evaluate.embed import Features, embed, raw
from openjepa.log import console, say
from openjepa.modalities.image import Image
from openjepa.types import Dataset, Mistake

TESTS = ("test", "val", "valid", "validation")
HELD = 0.2  # share held out for testing where the folder has no test folder


@dataclass(frozen=True)
class Labelled:
    """Labelled data: sub-folders are classes."""

    root: tuple[str, ...] = ()  # a folder of class folders, or of train/ and test/ (or val/) with class folders in each


@dataclass(frozen=True)
class Probe:
    """Measures an encoder on a labelled folder."""

    run: Path  # a run, or an export
    data: Labelled = dataclasses.field(default_factory=Labelled)
    which: Literal["target", "context"] = "target"  # the averaged encoder, as in the paper, or the trained one
    baselines: bool = True  # also the encoder before training, and raw pixels
    seed: int = 0  # of the held-out split and of the validation split
    device: str = "auto"
    precision: Precision = "auto"


class Score(NamedTuple):
    """Top-1 accuracies in [0, 1] on test data that nothing was trained on."""

    features: str
    linear: float
    knn: float


def probe(settings: Probe) -> list[Score]:
    """Linear (L2 logistic regression) and 20-nearest-neighbour accuracy; printed, and added to RUN/probes.jsonl."""
    trained = weights.load(settings.run, settings.which)
    modality = trained.config.data
    if not isinstance(modality, Image):
        raise Mistake(f"{settings.run} was trained on signals: jepa probe takes folders of images so far")
    train, test, split = datasets(modality, settings.data.root, settings.seed)
    where, classes = place(settings.device, settings.precision), len(train.classes)
    if classes < 2:
        raise Mistake(
            f"all images are in one folder, so there is nothing to tell apart: want a sub-folder for each class below {settings.data.root[0]}"
        )

    candidates = {"this encoder": trained.encoder}
    if settings.baselines:
        candidates["before training"] = weights.untrained(trained.config)
    scores = [
        score(
            name, embed(encoder, modality, train, where), embed(encoder, modality, test, where), classes, settings.seed
        )
        for name, encoder in candidates.items()
    ]
    if settings.baselines:
        scores.append(score("raw pixels", raw(train), raw(test), classes, settings.seed))
    say(f"{classes} classes, {len(train):,} images to train on, {len(test):,} to test ({split})")
    show(scores)
    record(settings, scores)
    return scores


def score(name: str, train: Features, test: Features, classes: int, seed: int) -> Score:
    linear = logistic.probe(train, test, classes, seed)
    return Score(name, linear, logistic.accuracy(neighbours.predict(*train, test[0], classes), test[1]))


def datasets(modality: Image, root: tuple[str, ...], seed: int) -> tuple[Dataset, Dataset, str]:
    """Training data, test data, and a word on how they were told apart."""
    folder = Path(root[0]) if len(root) == 1 else None
    tests = [folder / name for name in TESTS if (folder / name).is_dir()] if folder else []
    if folder and tests and (folder / "train").is_dir():
        parts = [at(modality, (str(part),)) for part in (folder / "train", tests[0])]
        if set(parts[1].classes) - set(parts[0].classes):
            raise Mistake(f"{tests[0]} has class folders that {folder / 'train'} has not: their names must agree")
        return parts[0], Relabelled(parts[1], parts[0].classes), f"{tests[0].name}/"
    whole = at(modality, root)
    shuffled = torch.from_numpy(order(seed, 0, len(whole)))
    held = max(1, int(len(whole) * HELD))
    return Subset(whole, shuffled[held:]), Subset(whole, shuffled[:held]), "a fifth held out at random"


def at(modality: Image, root: tuple[str, ...]) -> Dataset:
    there = dataclasses.replace(modality, root=root)
    return there.dataset(there.listing())


class Subset:
    """Some samples of a dataset."""

    def __init__(self, whole: Dataset, index: torch.Tensor):
        self.whole, self.index, self.classes, self.fingerprint = whole, index, whole.classes, whole.fingerprint

    def __len__(self) -> int:
        return len(self.index)

    def read(self, index, draws):
        return self.whole.read(self.index[index], draws)


class Relabelled:
    """A dataset whose labels are numbered as another's, by name."""

    def __init__(self, own: Dataset, classes: tuple[str, ...]):
        self.own, self.classes, self.fingerprint = own, classes, own.fingerprint
        self.number = torch.tensor([*(classes.index(name) for name in own.classes), -1])

    def __len__(self) -> int:
        return len(self.own)

    def read(self, index, draws):
        read = self.own.read(index, draws)
        return read._replace(label=self.number[read.label])


def show(scores: list[Score]) -> None:
    table = Table("features", "linear %", "kNN %")
    for each in scores:
        table.add_row(each.features, f"{100 * each.linear:.1f}", f"{100 * each.knn:.1f}")
    console.print(table)


def record(settings: Probe, scores: list[Score]) -> None:
    row = {
        "data": settings.data.root,
        "which": settings.which,
        "seed": settings.seed,
        "scores": [each._asdict() for each in scores],
    }
    with (settings.run / "probes.jsonl").open("a") as stream:
        stream.write(json.dumps(row) + "\n")
