"""Run the probes on the features of an encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from openjepa.core.console import info
from openjepa.evaluation.feature_store import Features
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.labeled import LabeledData
from openjepa.evaluation.probes.attentive import attentive_probe
from openjepa.evaluation.probes.finetune import finetune_probe
from openjepa.evaluation.probes.finetune_recipes import FINETUNE_RECIPES
from openjepa.evaluation.probes.finetune_recipes import FinetuneRecipeName as FinetuneName
from openjepa.evaluation.probes.knn import knn_predict
from openjepa.evaluation.probes.linear import Batches, LabeledFeatures, linear_probe
from openjepa.evaluation.probes.linear_recipes import LINEAR_RECIPES, LinearRecipeName
from openjepa.evaluation.probes.logistic import LinearClassifier, fit_logistic, logistic_probe
from openjepa.evaluation.probes.lowshot import STRENGTH, lowshot_probe
from openjepa.evaluation.scores import Score, bootstrap_interval
from openjepa.interop.adapters import POOLED_KINDS, PooledKind
from openjepa.training.device import Precision

ProbeName = Literal["logistic", "linear", "knn", "lowshot", "attentive", "finetune"]


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """What is measured, and how."""

    data: LabeledData = dataclasses.field(default_factory=LabeledData)
    probes: tuple[ProbeName, ...] = ("logistic", "linear", "knn")
    augment: bool = False  # train linear and attentive heads on random crops, mirrored at random
    linear: LinearRecipeName = "default"
    finetune: FinetuneName = "default"
    features: PooledKind = (
        "last"  # features of logistic, knn and lowshot: the last layer, or the last four side by side
    )
    shots: tuple[float, ...] = (
        1.0,
        10.0,
    )  # of lowshot, and --finetune lowshot: labels a class, below 1 a share of each
    repeats: int = 5  # of the same
    encoder: Literal["target", "context"] = "target"  # the averaged encoder, as in the paper, or the trained one
    cache: Path | None = None  # keep features in this folder, and take them from there
    seed: int = 0  # of the held-out split, of the validation split, of the heads
    device: str = "auto"
    precision: Precision = "auto"


class EncoderPair(NamedTuple):
    """The encoder before the training and the test data."""

    train: DatasetEncoder
    test: DatasetEncoder


class SplitFeatures(NamedTuple):
    """Features of the training and of the test data."""

    train: Features
    test: Features
    views: EncoderPair | None = None  # where the features come from; raw pixels come from nowhere


class ProbeInput(NamedTuple):
    """What a probe is given: one encoder's features under the name that its scores bear, and what was asked."""

    name: str
    parts: SplitFeatures
    classes: int
    settings: ProbeSettings

    @property
    def kind(self) -> str:
        """The kind of features asked for; pixels have one."""
        return self.settings.features if self.settings.features in self.parts.train.kinds else "last"


class ProbeResult(NamedTuple):
    """A score, and the answers behind it where there is one for each test image."""

    score: Score
    predicted: Tensor | None
    truth: Tensor
    model: LinearClassifier | None = None  # of the last layer's features, to be kept


def run_probes(subject: ProbeInput) -> list[ProbeResult]:
    """Every probe asked for, on one candidate's features."""
    found = []
    for asked in subject.settings.probes:
        info(f"probing    {subject.name}: {asked}")
        found += PROBES[asked](subject)
    return found


def probe_label(probe: str, *options: str) -> str:
    """A probe's name in a table: with its recipe and its features, unless they are the usual ones."""
    return " ".join([probe, *(option for option in options if option not in ("", "default", "last"))])


def score_of_predictions(
    subject: ProbeInput, probe: str, predicted: Tensor, chosen: dict[str, Any]
) -> list[ProbeResult]:
    """One score from an answer for each test image."""
    truth = subject.parts.test.y
    correct = (predicted == truth).float()
    score = Score(subject.name, probe, correct.mean().item(), *bootstrap_interval(correct), chosen)
    return [ProbeResult(score, predicted, truth)]


def lowshot_scores(
    subject: ProbeInput, probe: str, answer: Callable[[Tensor], Tensor], chosen: dict[str, Any]
) -> list[ProbeResult]:
    """For each number of shots the mean over several draws of labels, their deviation and interval."""
    (_, parts, classes, settings), found = subject, []
    for shots in settings.shots:
        y, truth = parts.train.y, parts.test.y
        draws = lowshot_probe(answer, y, truth, classes, shots, settings.repeats, settings.seed)
        values = torch.tensor([draw.accuracy for draw in draws])
        label = f"{shots:g} a class" if shots >= 1 else f"{100 * shots:g} % of labels"
        spread = {"draws": values.tolist(), "deviation": float(values.std(correction=0)), "labels": draws[0].shots}
        interval = bootstrap_interval(values if len(draws) > 1 else draws[0].correct)  # of one draw: over test images
        score = Score(subject.name, probe_label(label, probe), float(values.mean()), *interval, {**chosen, **spread})
        found.append(ProbeResult(score, None, truth))
    return found


def run_logistic(subject: ProbeInput) -> list[ProbeResult]:
    (_, (train, test, _), classes, settings), kind = subject, subject.kind
    found = logistic_probe(train[kind], train.y, test[kind], classes, settings.seed)
    chosen = {"strength": found.strength, "validation": found.validation, "labels": len(train.y), "kind": kind}
    (one,) = score_of_predictions(subject, probe_label("logistic", kind), found.predicted, chosen)
    return [one._replace(model=found.model if kind == "last" else None)]


def run_linear(subject: ProbeInput) -> list[ProbeResult]:
    _, parts, classes, settings = subject
    train, test = (
        LabeledFeatures({kind: part[kind] for kind in part.kinds}, part.y) for part in (parts.train, parts.test)
    )
    recipe, views = LINEAR_RECIPES[settings.linear], parts.views

    def crops(index: Tensor) -> Batches:
        assert views
        seen_in = views.train.epochs(parts.train.labelled[index], recipe.batch_size, settings.seed, True, patches=False)
        y = train.label[index]
        return lambda epoch: (
            ({kind: getattr(seen, kind) for kind in POOLED_KINDS}, y[rows]) for seen, rows in seen_in(epoch)
        )

    augmented, device = (crops if settings.augment else None, views.train.device.device) if views else (None, None)
    found = linear_probe(train, test, classes, recipe, settings.seed, augmented, device)
    chosen = {**found.head._asdict(), "validation": found.validation, "recipe": settings.linear}
    return score_of_predictions(
        subject, probe_label("linear", settings.linear, "crops" if augmented else ""), found.predicted, chosen
    )


def run_knn(subject: ProbeInput) -> list[ProbeResult]:
    (_, (train, test, _), classes, _), kind = subject, subject.kind
    predicted = knn_predict(train[kind], train.y, test[kind], classes)
    return score_of_predictions(
        subject, probe_label("kNN", kind), predicted, {"k": 20, "temperature": 0.07, "kind": kind}
    )


def run_lowshot(subject: ProbeInput) -> list[ProbeResult]:
    """Logistic regression on few labels."""
    (_, (train, test, _), classes, _), kind = subject, subject.kind
    x, y, asked = train[kind], train.y, test[kind]

    def answer(rows: Tensor) -> Tensor:
        return fit_logistic(x[rows], y[rows], classes, STRENGTH).predict(asked)

    return lowshot_scores(subject, "" if kind == "last" else kind, answer, {"kind": kind})


def run_attentive(subject: ProbeInput) -> list[ProbeResult]:
    _, (train, test, views), classes, settings = subject
    if views is None:
        return []  # pixels have no tokens
    found = attentive_probe(
        *views, (train.labelled, train.y), test.labelled, classes, seed=settings.seed, augment=settings.augment
    )
    chosen = {**found.head._asdict(), "validation": found.validation}
    return score_of_predictions(
        subject, probe_label("attentive", "crops" if settings.augment else ""), found.predicted, chosen
    )


def run_finetune(subject: ProbeInput) -> list[ProbeResult]:
    """On an encoder before training this is a supervised network of the same size from scratch."""
    _, (train, test, views), classes, settings = subject
    if views is None:
        return []  # pixels have no weights
    index, y, recipe = train.labelled, train.y, FINETUNE_RECIPES[settings.finetune]

    def answer(rows: Tensor) -> Tensor:
        return finetune_probe(*views, (index[rows], y[rows]), test.labelled, classes, recipe, settings.seed)

    probe, chosen = probe_label("finetune", settings.finetune), {"recipe": settings.finetune}
    if settings.finetune == "lowshot":
        return lowshot_scores(subject, "finetune", answer, chosen)
    return score_of_predictions(subject, probe, answer(torch.arange(len(y))), chosen)


PROBES: dict[str, Callable[[ProbeInput], list[ProbeResult]]] = {
    "logistic": run_logistic,
    "linear": run_linear,
    "knn": run_knn,
    "lowshot": run_lowshot,
    "attentive": run_attentive,
    "finetune": run_finetune,
}
