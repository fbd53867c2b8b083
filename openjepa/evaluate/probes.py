"""The probes: what simple classifiers make of features, each under its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from openjepa.core.console import info
from openjepa.evaluate import lowshot, report
from openjepa.evaluate.attentive import probe
from openjepa.evaluate.embed import Features, Viewer
from openjepa.evaluate.finetune import RECIPES, finetune
from openjepa.evaluate.finetune import RecipeName as FinetuneName
from openjepa.evaluate.labelled import Labelled
from openjepa.evaluate.linear import Batches, RecipeName
from openjepa.evaluate.logistic import Linear, fit
from openjepa.evaluate.lowshot import STRENGTH
from openjepa.evaluate.neighbours import predict
from openjepa.evaluate.report import Score, interval
from openjepa.interop.adapters import POOLED_KINDS, PooledKind
from openjepa.training.device import Precision

Name = Literal["logistic", "linear", "knn", "lowshot", "attentive", "finetune"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how."""

    data: Labelled = dataclasses.field(default_factory=Labelled)
    probes: tuple[Name, ...] = ("logistic", "linear", "knn")
    crops: bool = False  # train linear and attentive heads on random crops, mirrored at random
    linear: RecipeName = "default"
    finetune: FinetuneName = "default"
    kind: PooledKind = "last"  # features of logistic, knn and lowshot: the last layer, or the last four side by side
    shots: tuple[float, ...] = (
        1.0,
        10.0,
    )  # of lowshot, and --finetune lowshot: labels a class, below 1 a share of each
    draws: int = 5  # of the same
    which: Literal["target", "context"] = "target"  # the averaged encoder, as in the paper, or the trained one
    features: Path | None = None  # keep features in this folder, and take them from there
    seed: int = 0  # of the held-out split, of the validation split, of the heads
    device: str = "auto"
    precision: Precision = "auto"


class Viewers(NamedTuple):
    """The encoder before the training and the test data."""

    train: Viewer
    test: Viewer


class Parts(NamedTuple):
    """Features of the training and of the test data."""

    train: Features
    test: Features
    views: Viewers | None = None  # where the features come from; raw pixels come from nowhere


class Subject(NamedTuple):
    """What a probe is given: one encoder's features under the name that its scores bear, and what was asked."""

    name: str
    parts: Parts
    classes: int
    settings: Settings

    @property
    def kind(self) -> str:
        """The kind of features asked for; pixels have one."""
        return self.settings.kind if self.settings.kind in self.parts.train.kinds else "last"


class Found(NamedTuple):
    """A score, and the answers behind it where there is one for each test image."""

    score: Score
    predicted: Tensor | None
    truth: Tensor
    model: Linear | None = None  # of the last layer's features, to be kept


def scores_of(subject: Subject) -> list[Found]:
    """Every probe asked for, on one candidate's features."""
    found = []
    for asked in subject.settings.probes:
        info(f"probing    {subject.name}: {asked}")
        found += PROBES[asked](subject)
    return found


def called(probe: str, *options: str) -> str:
    """A probe's name in a table: with its recipe and its features, unless they are the usual ones."""
    return " ".join([probe, *(option for option in options if option not in ("", "default", "last"))])


def answered(subject: Subject, probe: str, predicted: Tensor, chosen: dict[str, Any]) -> list[Found]:
    """One score from an answer for each test image."""
    truth = subject.parts.test.y
    correct = (predicted == truth).float()
    score = Score(subject.name, probe, correct.mean().item(), *interval(correct), chosen)
    return [Found(score, predicted, truth)]


def few_labels(subject: Subject, probe: str, answer: Callable[[Tensor], Tensor], chosen: dict[str, Any]) -> list[Found]:
    """For each number of shots the mean over several draws of labels, their deviation and interval."""
    (_, parts, classes, settings), found = subject, []
    for shots in settings.shots:
        y, truth = parts.train.y, parts.test.y
        draws = lowshot.probe(answer, y, truth, classes, shots, settings.draws, settings.seed)
        values = torch.tensor([draw.accuracy for draw in draws])
        label = f"{shots:g} a class" if shots >= 1 else f"{100 * shots:g} % of labels"
        spread = {"draws": values.tolist(), "deviation": float(values.std(correction=0)), "labels": draws[0].shots}
        interval = report.interval(values if len(draws) > 1 else draws[0].correct)  # of one draw: over test images
        score = Score(subject.name, called(label, probe), float(values.mean()), *interval, {**chosen, **spread})
        found.append(Found(score, None, truth))
    return found


def by_logistic(subject: Subject) -> list[Found]:
    (_, (train, test, _), classes, settings), kind = subject, subject.kind
    found = probe(train[kind], train.y, test[kind], classes, settings.seed)
    chosen = {"strength": found.strength, "validation": found.validation, "labels": len(train.y), "kind": kind}
    (one,) = answered(subject, called("logistic", kind), found.predicted, chosen)
    return [one._replace(model=found.model if kind == "last" else None)]


def by_linear(subject: Subject) -> list[Found]:
    _, parts, classes, settings = subject
    train, test = (Labelled({kind: part[kind] for kind in part.kinds}, part.y) for part in (parts.train, parts.test))
    recipe, views = RECIPES[settings.linear], parts.views

    def crops(index: Tensor) -> Batches:
        assert views
        seen_in = views.train.epochs(parts.train.labelled[index], recipe.batch_size, settings.seed, True, patches=False)
        y = train.label[index]
        return lambda epoch: (
            ({kind: getattr(seen, kind) for kind in POOLED_KINDS}, y[rows]) for seen, rows in seen_in(epoch)
        )

    augmented, device = (crops if settings.crops else None, views.train.place.device) if views else (None, None)
    found = probe(train, test, classes, recipe, settings.seed, augmented, device)
    chosen = {**found.head._asdict(), "validation": found.validation, "recipe": settings.linear}
    return answered(subject, called("linear", settings.linear, "crops" if augmented else ""), found.predicted, chosen)


def by_neighbours(subject: Subject) -> list[Found]:
    (_, (train, test, _), classes, _), kind = subject, subject.kind
    predicted = predict(train[kind], train.y, test[kind], classes)
    return answered(subject, called("kNN", kind), predicted, {"k": 20, "temperature": 0.07, "kind": kind})


def by_few_labels(subject: Subject) -> list[Found]:
    """Logistic regression on few labels."""
    (_, (train, test, _), classes, _), kind = subject, subject.kind
    x, y, asked = train[kind], train.y, test[kind]

    def answer(rows: Tensor) -> Tensor:
        return fit(x[rows], y[rows], classes, STRENGTH).predict(asked)

    return few_labels(subject, "" if kind == "last" else kind, answer, {"kind": kind})


def by_attention(subject: Subject) -> list[Found]:
    _, (train, test, views), classes, settings = subject
    if views is None:
        return []  # pixels have no tokens
    found = probe(*views, (train.labelled, train.y), test.labelled, classes, seed=settings.seed, augment=settings.crops)
    chosen = {**found.head._asdict(), "validation": found.validation}
    return answered(subject, called("attentive", "crops" if settings.crops else ""), found.predicted, chosen)


def by_finetuning(subject: Subject) -> list[Found]:
    """On an encoder before training this is a supervised network of the same size from scratch."""
    _, (train, test, views), classes, settings = subject
    if views is None:
        return []  # pixels have no weights
    index, y, recipe = train.labelled, train.y, RECIPES[settings.finetune]

    def answer(rows: Tensor) -> Tensor:
        return finetune(*views, (index[rows], y[rows]), test.labelled, classes, recipe, settings.seed)

    probe, chosen = called("finetune", settings.finetune), {"recipe": settings.finetune}
    if settings.finetune == "lowshot":
        return few_labels(subject, "finetune", answer, chosen)
    return answered(subject, probe, answer(torch.arange(len(y))), chosen)


PROBES: dict[str, Callable[[Subject], list[Found]]] = {
    "logistic": by_logistic,
    "linear": by_linear,
    "knn": by_neighbours,
    "lowshot": by_few_labels,
    "attentive": by_attention,
    "finetune": by_finetuning,
}
