"""Run the probes on the features of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from openjepa.core.console import info
from openjepa.evaluation.feature_store import Features
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.probes.attentive import attentive_probe
from openjepa.evaluation.probes.finetune import finetune_probe
from openjepa.evaluation.probes.finetune_recipes import FINETUNE_RECIPES
from openjepa.evaluation.probes.knn import knn_predict
from openjepa.evaluation.probes.linear import Batches, LabeledFeatures, linear_probe
from openjepa.evaluation.probes.linear_recipes import LINEAR_RECIPES
from openjepa.evaluation.probes.logistic import LinearClassifier, fit_logistic, logistic_probe
from openjepa.evaluation.probes.lowshot import STRENGTH, lowshot_probe
from openjepa.evaluation.scores import Score, bootstrap_interval
from openjepa.evaluation.settings import ProbeSettings
from openjepa.interop.pretrained import POOLED_KINDS


class EncoderPair(NamedTuple):
    """The encoder with the training data and with the test data."""

    train: DatasetEncoder
    test: DatasetEncoder


class SplitFeatures(NamedTuple):
    """Features of the training data and of the test data."""

    train: Features
    test: Features
    views: EncoderPair | None = None  # the encoder behind the features; None for raw pixels


class ProbeInput(NamedTuple):
    """The input of a probe: features of one encoder, its name in the scores, and the settings."""

    name: str
    parts: SplitFeatures
    classes: int
    settings: ProbeSettings

    @property
    def kind(self) -> str:
        """Return the kind of features to use; raw pixels have only one."""
        return self.settings.features if self.settings.features in self.parts.train.kinds else "last"


class ProbeResult(NamedTuple):
    """A score and the predictions behind it."""

    score: Score
    predicted: Tensor | None  # class of each test image; None for a mean over several subsets of labels
    truth: Tensor
    model: LinearClassifier | None = None  # logistic regression on the last layer's features, for jepa predict


def run_probes(subject: ProbeInput) -> list[ProbeResult]:
    """Run every requested probe on the features of one encoder."""
    results = []
    for probe in subject.settings.probes:
        info(f"probing    {subject.name}: {probe}")
        results += PROBES[probe](subject)
    return results


def probe_label(probe: str, *options: str) -> str:
    """Format a probe's name for tables: with its recipe and features, unless they are the defaults."""
    return " ".join([probe, *(option for option in options if option not in ("", "default", "last"))])


def score_of_predictions(
    subject: ProbeInput, probe: str, predicted: Tensor, chosen: dict[str, Any]
) -> list[ProbeResult]:
    """Compute a score with its interval from predictions of the test images."""
    truth = subject.parts.test.y
    correct = (predicted == truth).float()
    score = Score(subject.name, probe, correct.mean().item(), *bootstrap_interval(correct), chosen)
    return [ProbeResult(score, predicted, truth)]


def lowshot_scores(
    subject: ProbeInput, probe: str, answer: Callable[[Tensor], Tensor], chosen: dict[str, Any]
) -> list[ProbeResult]:
    """Compute for each number of shots the mean accuracy over random subsets of labels, with its interval."""
    (_, parts, classes, settings), results = subject, []
    for shots in settings.shots:
        y, truth = parts.train.y, parts.test.y
        repeats = lowshot_probe(answer, y, truth, classes, shots, settings.repeats, settings.seed)
        values = torch.tensor([repeat.accuracy for repeat in repeats])
        label = f"{shots:g} a class" if shots >= 1 else f"{100 * shots:g} % of labels"
        spread = {"draws": values.tolist(), "deviation": float(values.std(correction=0)), "labels": repeats[0].shots}
        interval = bootstrap_interval(values if len(repeats) > 1 else repeats[0].correct)
        score = Score(subject.name, probe_label(label, probe), float(values.mean()), *interval, {**chosen, **spread})
        results.append(ProbeResult(score, None, truth))
    return results


def run_logistic(subject: ProbeInput) -> list[ProbeResult]:
    """Run logistic regression; its strength is selected on validation data."""
    (_, (train, test, _), classes, settings), kind = subject, subject.kind
    result = logistic_probe(train[kind], train.y, test[kind], classes, settings.seed)
    chosen = {"strength": result.strength, "validation": result.validation, "labels": len(train.y), "kind": kind}
    (one,) = score_of_predictions(subject, probe_label("logistic", kind), result.predicted, chosen)
    return [one._replace(model=result.model if kind == "last" else None)]


def run_linear(subject: ProbeInput) -> list[ProbeResult]:
    """Run the sweep of linear heads, on stored features or on random crops."""
    _, parts, classes, settings = subject
    train, test = (
        LabeledFeatures({kind: part[kind] for kind in part.kinds}, part.y) for part in (parts.train, parts.test)
    )
    recipe, views = LINEAR_RECIPES[settings.linear], parts.views

    def crops(index: Tensor) -> Batches:
        assert views
        samples, y = parts.train.labeled[index], train.label[index]
        outputs_of = views.train.epochs(samples, recipe.batch_size, settings.seed, True, patches=False)

        def batches_of(epoch: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
            for output, rows in outputs_of(epoch):
                yield {kind: getattr(output, kind) for kind in POOLED_KINDS}, y[rows]

        return batches_of

    augmented, device = (crops if settings.augment else None, views.train.device.device) if views else (None, None)
    result = linear_probe(train, test, classes, recipe, settings.seed, augmented, device)
    chosen = {**result.head._asdict(), "validation": result.validation, "recipe": settings.linear}
    label = probe_label("linear", settings.linear, "crops" if augmented else "")
    return score_of_predictions(subject, label, result.predicted, chosen)


def run_knn(subject: ProbeInput) -> list[ProbeResult]:
    """Run the k-nearest-neighbor probe."""
    (_, (train, test, _), classes, _), kind = subject, subject.kind
    predicted = knn_predict(train[kind], train.y, test[kind], classes)
    chosen = {"k": 20, "temperature": 0.07, "kind": kind}
    return score_of_predictions(subject, probe_label("kNN", kind), predicted, chosen)


def run_lowshot(subject: ProbeInput) -> list[ProbeResult]:
    """Run logistic regression on few labels."""
    (_, (train, test, _), classes, _), kind = subject, subject.kind
    x, y, test_features = train[kind], train.y, test[kind]

    def answer(rows: Tensor) -> Tensor:
        return fit_logistic(x[rows], y[rows], classes, STRENGTH).predict(test_features)

    return lowshot_scores(subject, "" if kind == "last" else kind, answer, {"kind": kind})


def run_attentive(subject: ProbeInput) -> list[ProbeResult]:
    """Run the attentive probe; raw pixels have no tokens and are skipped."""
    _, (train, test, views), classes, settings = subject
    if views is None:
        return []
    result = attentive_probe(
        *views, (train.labeled, train.y), test.labeled, classes, seed=settings.seed, augment=settings.augment
    )
    chosen = {**result.head._asdict(), "validation": result.validation}
    label = probe_label("attentive", "crops" if settings.augment else "")
    return score_of_predictions(subject, label, result.predicted, chosen)


def run_finetune(subject: ProbeInput) -> list[ProbeResult]:
    """Fine-tune the encoder; raw pixels have no weights and are skipped.

    For the encoder before training this measures a supervised network of the same size, trained from scratch.
    """
    _, (train, test, views), classes, settings = subject
    if views is None:
        return []
    index, y, recipe = train.labeled, train.y, FINETUNE_RECIPES[settings.finetune]

    def answer(rows: Tensor) -> Tensor:
        return finetune_probe(*views, (index[rows], y[rows]), test.labeled, classes, recipe, settings.seed)

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
