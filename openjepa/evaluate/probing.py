"""`jepa probe` and `jepa compare`: what simple classifiers make of features, beside honest baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from openjepa.device import Place, Precision, place
from openjepa.evaluate import linear, logistic, lowshot, neighbours, report, spectrum
from openjepa.evaluate.candidates import KINDS, Candidate, Kind, candidate
from openjepa.evaluate.embed import Features, crops, embed, raw
from openjepa.evaluate.labelled import Labelled, Split, split
from openjepa.evaluate.report import Score
from openjepa.log import say
from openjepa.types import Dataset, Mistake

Name = Literal["logistic", "linear", "knn", "lowshot"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how."""

    data: Labelled = dataclasses.field(default_factory=Labelled)
    probes: tuple[Name, ...] = ("logistic", "linear", "knn")
    crops: bool = False  # train the linear heads on random crops, mirrored at random, seen anew in every epoch
    linear: Literal["default", "in1k", "cifar100", "places205", "inat18", "clevr-count", "clevr-dist"] = "default"
    shots: tuple[float, ...] = (1.0, 10.0)  # of lowshot: labels a class, or below 1 a share of each class
    draws: int = 5  # of lowshot
    which: Literal["target", "context"] = "target"  # the averaged encoder, as in the paper, or the trained one
    features: Path | None = None  # keep features in this folder, and take them from there
    seed: int = 0  # of the held-out split, of the validation split, of the heads
    device: str = "auto"
    precision: Precision = "auto"


@dataclass(frozen=True, kw_only=True)
class Probe(Settings):
    """Measures an encoder on a labelled folder."""

    run: str  # a run, an export, a Hugging Face folder, hf:ID, or module:function
    baselines: bool = True  # also the encoder before training, and raw pixels
    out: Path | None = None  # folder of the results; by default probes/ in the run's folder


@dataclass(frozen=True, kw_only=True)
class Compare(Settings):
    """Measures several encoders on one labelled folder, in one table."""

    runs: tuple[str, ...]  # each as for probe
    out: Path = Path("comparison")  # folder of the results


class Parts(NamedTuple):
    """Features of the training and of the test data."""

    train: Features
    test: Features
    crops: Callable[[Tensor], linear.Batches] | None = None  # of labelled training samples, by place among them


def probe(settings: Probe) -> list[Score]:
    """Accuracies of the encoder and of its baselines; printed, and written with a confusion matrix to RUN/probes."""
    this = dataclasses.replace(candidate(settings.run, settings.which), name="this encoder")
    compared = [this]
    if settings.baselines and this.untrained:
        compared.append(this.untrained())
    folder = Path(settings.run)
    out = settings.out or (folder / "probes" if folder.is_dir() else Path("probes"))
    return measured(compared, settings, out, pixels=settings.baselines)


def compare(settings: Compare) -> list[Score]:
    """Accuracies of several encoders in one table, raw pixels beside them; printed and written."""
    if not settings.runs:
        raise Mistake("nothing to compare: name runs, Hugging Face folders, hf:ID or module:function")
    compared = [dataclasses.replace(candidate(run, settings.which), name=run) for run in settings.runs]
    return measured(compared, settings, settings.out, pixels=True)


class Found(NamedTuple):
    """A score, and the answers behind it where there is one for each test image."""

    score: Score
    predicted: Tensor | None
    truth: Tensor


class Measured(NamedTuple):
    """All that a table says."""

    scores: list[Score]
    free: dict[str, dict[str, float]]  # encoder → meters that need no label
    first: Found  # the first score, with the answers behind it
    parts: Split


def measured(compared: list[Candidate], settings: Settings, out: Path, pixels: bool) -> list[Score]:
    """Every probe on every candidate, each with the pictures cut as it wants them; printed and written."""
    if not settings.probes:
        raise Mistake("no probe was asked for: try --probes logistic knn")
    where = place(settings.device, settings.precision)
    found: list[Found] = []
    free: dict[str, dict[str, float]] = {}
    for each in compared:
        parts = split(dataclasses.replace(each.data, flip=settings.crops), settings.data, settings.seed)
        features = features_of(each, parts, settings, where)
        found += scores_of(each.name, features, parts, settings)
        free[each.name] = spectrum.meters(each, parts.train, features.test["last"], where, settings.seed)
    parts = split(compared[0].data, settings.data, settings.seed)
    if pixels:
        found += scores_of("raw pixels", Parts(raw(parts.train), raw(parts.test)), parts, settings)
    publish(Measured([each.score for each in found], free, found[0], parts), settings, out)
    return [each.score for each in found]


def publish(result: Measured, settings: Settings, out: Path) -> None:
    """Prints the tables; writes them as JSON and Markdown, with the first score's confusion matrix, named as the data."""
    (train, test, how), first = result.parts, result.first
    name, classes = Path(settings.data.root[0]).resolve().name, train.classes
    title = f"{len(classes)} classes, {len(train):,} images to train on, {len(test):,} to test ({how})"
    say(title)
    report.show(result.scores, "top-1 accuracy on test images (95 % interval)")
    report.show_free(result.free)

    out.mkdir(parents=True, exist_ok=True)
    text = f"# {name}\n\n{title}\n\n{report.markdown(result.scores)}\n\n{report.markdown_free(result.free)}\n"
    if first.predicted is not None:
        table, of = (
            report.confusion(first.predicted, first.truth, len(classes)),
            f"{first.score.features}, {first.score.probe}",
        )
        drawn = report.picture(table, classes, of, out / f"{name}.png")
        text += f"\n## {of}\n\n![confusion]({drawn.name})\n\n{report.per_class(table, classes)}\n"
    about = {"data": settings.data.root, "which": settings.which, "seed": settings.seed, "split": title}
    file = report.write(out, name, {**about, "label_free": result.free}, result.scores, text)
    say(f"written    {file}")


def features_of(each: Candidate, parts: Split, settings: Settings, where: Place) -> Parts:
    """Both parts' features, from the folder where they are kept if they are there."""
    kinds: tuple[Kind, ...] = ("last", "last4") if "linear" in settings.probes else ("last",)
    made = []
    for data in (parts.train, parts.test):
        folder = settings.features
        if folder:
            folder = folder / f"{data.fingerprint}-{each.fingerprint}-{'-'.join(kinds)}-{settings.data.fit}"
        made.append(embed(each, data, where, kinds, folder))
    return Parts(*made, crops=crops_of(each, parts.train, made[0], settings, where) if settings.crops else None)


def crops_of(
    each: Candidate, data: Dataset, features: Features, settings: Settings, where: Place
) -> Callable[[Tensor], linear.Batches]:
    """What the linear heads are trained on, for some of the labelled training samples."""
    labelled, batch = torch.where(features.label >= 0)[0], linear.RECIPES[settings.linear].batch_size

    def batches(index: Tensor) -> linear.Batches:
        seen_in, y = crops(each, data, labelled[index], where, batch, settings.seed), features.y[index]
        return lambda epoch: (({kind: getattr(seen, kind) for kind in KINDS}, y[rows]) for seen, rows in seen_in(epoch))

    return batches


def scores_of(name: str, parts: Parts, data: Split, settings: Settings) -> list[Found]:
    """Every probe asked for, on one candidate's features."""
    return [
        found for asked in settings.probes for found in PROBES[asked](name, parts, len(data.train.classes), settings)
    ]


def answered(name: str, probe: str, predicted: Tensor, truth: Tensor, chosen: dict[str, Any]) -> list[Found]:
    correct = (predicted == truth).float()
    return [Found(Score(name, probe, correct.mean().item(), *report.interval(correct), chosen), predicted, truth)]


def by_logistic(name: str, parts: Parts, classes: int, settings: Settings) -> list[Found]:
    found = logistic.probe(parts.train["last"], parts.train.y, parts.test["last"], classes, settings.seed)
    chosen = {"strength": found.strength, "validation": found.validation}
    return answered(name, "logistic", found.predicted, parts.test.y, chosen)


def by_linear(name: str, parts: Parts, classes: int, settings: Settings) -> list[Found]:
    train, test = (
        linear.Labelled({kind: part[kind] for kind in part.kinds}, part.y) for part in (parts.train, parts.test)
    )
    found = linear.probe(train, test, classes, linear.RECIPES[settings.linear], settings.seed, parts.crops)
    chosen = {**found.head._asdict(), "validation": found.validation, "recipe": settings.linear}
    return answered(name, "linear", found.predicted, test.label, chosen)


def by_neighbours(name: str, parts: Parts, classes: int, settings: Settings) -> list[Found]:
    predicted = neighbours.predict(parts.train["last"], parts.train.y, parts.test["last"], classes)
    return answered(name, "kNN", predicted, parts.test.y, {"k": 20, "temperature": 0.07})


def by_few_labels(name: str, parts: Parts, classes: int, settings: Settings) -> list[Found]:
    train, test = ((part["last"], part.y) for part in (parts.train, parts.test))
    found = []
    for shots in settings.shots:
        draws = lowshot.probe(train, test, classes, shots, settings.draws, settings.seed)
        values = torch.tensor([draw.accuracy for draw in draws])
        label = f"{shots:g} a class" if shots >= 1 else f"{100 * shots:g} % of labels"
        chosen = {"draws": values.tolist(), "deviation": float(values.std(correction=0)), "labels": draws[0].shots}
        found.append(Found(Score(name, label, float(values.mean()), *report.interval(values), chosen), None, test[1]))
    return found


PROBES: dict[str, Callable[[str, Parts, int, Settings], list[Found]]] = {
    "logistic": by_logistic,
    "linear": by_linear,
    "knn": by_neighbours,
    "lowshot": by_few_labels,
}
