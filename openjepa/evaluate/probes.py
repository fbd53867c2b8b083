"""The probes: what simple classifiers make of features, each under its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from openjepa.device import Precision
from openjepa.evaluate import attentive, finetune, linear, logistic, lowshot, neighbours, report
from openjepa.evaluate.candidates import KINDS, Kind
from openjepa.evaluate.embed import Features, Viewer
from openjepa.evaluate.finetune import RecipeName as FinetuneName
from openjepa.evaluate.labelled import Labelled, Split
from openjepa.evaluate.linear import RecipeName
from openjepa.evaluate.report import Score

Name = Literal["logistic", "linear", "knn", "lowshot", "attentive", "finetune"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how."""

    data: Labelled = dataclasses.field(default_factory=Labelled)
    probes: tuple[Name, ...] = ("logistic", "linear", "knn")
    crops: bool = False  # train linear and attentive heads on random crops, mirrored at random
    linear: RecipeName = "default"
    finetune: FinetuneName = "default"
    kind: Kind = "last"  # features of logistic, knn and lowshot: the last layer, or the last four side by side
    shots: tuple[float, ...] = (1.0, 10.0)  # of lowshot: labels a class, or below 1 a share of each class
    draws: int = 5  # of lowshot
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

    def kind(self, settings: Settings) -> str:
        """The kind of features asked for; pixels have one."""
        return settings.kind if settings.kind in self.train.kinds else "last"


class Found(NamedTuple):
    """A score, and the answers behind it where there is one for each test image."""

    score: Score
    predicted: Tensor | None
    truth: Tensor


def scores_of(name: str, parts: Parts, data: Split, settings: Settings) -> list[Found]:
    """Every probe asked for, on one candidate's features."""
    return [
        found for asked in settings.probes for found in PROBES[asked](name, parts, len(data.train.classes), settings)
    ]


def answered(name: str, probe: str, predicted: Tensor, truth: Tensor, chosen: dict[str, Any]) -> list[Found]:
    correct = (predicted == truth).float()
    return [Found(Score(name, probe, correct.mean().item(), *report.interval(correct), chosen), predicted, truth)]


def by_logistic(name: str, parts: Parts, classes: int, settings: Settings) -> list[Found]:
    kind = parts.kind(settings)
    found = logistic.probe(parts.train[kind], parts.train.y, parts.test[kind], classes, settings.seed)
    chosen = {"strength": found.strength, "validation": found.validation, "labels": len(parts.train.y), "kind": kind}
    return answered(name, "logistic", found.predicted, parts.test.y, chosen)


def by_linear(name: str, parts: Parts, classes: int, settings: Settings) -> list[Found]:
    train, test = (
        linear.Labelled({kind: part[kind] for kind in part.kinds}, part.y) for part in (parts.train, parts.test)
    )
    recipe = linear.RECIPES[settings.linear]

    def crops(index: Tensor) -> linear.Batches:
        assert views
        seen_in = views.train.epochs(parts.train.labelled[index], recipe.batch_size, settings.seed, True, patches=False)
        y = train.label[index]
        return lambda epoch: (({kind: getattr(seen, kind) for kind in KINDS}, y[rows]) for seen, rows in seen_in(epoch))

    views = parts.views
    found = linear.probe(
        train,
        test,
        classes,
        recipe,
        settings.seed,
        crops if views and settings.crops else None,
        views.train.place.device if views else None,
    )
    chosen = {**found.head._asdict(), "validation": found.validation, "recipe": settings.linear}
    return answered(name, "linear", found.predicted, test.label, chosen)


def by_attention(name: str, parts: Parts, classes: int, settings: Settings) -> list[Found]:
    if parts.views is None:
        return []  # pixels have no tokens
    train, test = ((part.labelled, part.y) for part in (parts.train, parts.test))
    found = attentive.probe(*parts.views, train, test[0], classes, seed=settings.seed, augment=settings.crops)
    chosen = {**found.head._asdict(), "validation": found.validation}
    return answered(name, "attentive", found.predicted, test[1], chosen)


def by_finetuning(name: str, parts: Parts, classes: int, settings: Settings) -> list[Found]:
    """On an encoder before training this is a supervised network of the same size from scratch."""
    if parts.views is None:
        return []  # pixels have no weights
    train, recipe = (parts.train.labelled, parts.train.y), finetune.RECIPES[settings.finetune]
    predicted = finetune.finetune(*parts.views, train, parts.test.labelled, classes, recipe, settings.seed)
    return answered(name, "finetune", predicted, parts.test.y, {"recipe": settings.finetune})


def by_neighbours(name: str, parts: Parts, classes: int, settings: Settings) -> list[Found]:
    kind = parts.kind(settings)
    predicted = neighbours.predict(parts.train[kind], parts.train.y, parts.test[kind], classes)
    return answered(name, "kNN", predicted, parts.test.y, {"k": 20, "temperature": 0.07, "kind": kind})


def by_few_labels(name: str, parts: Parts, classes: int, settings: Settings) -> list[Found]:
    train, test = ((part[parts.kind(settings)], part.y) for part in (parts.train, parts.test))
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
    "attentive": by_attention,
    "finetune": by_finetuning,
}
