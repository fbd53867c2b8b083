"""What an evaluator gets, and how predictions become scores.   S samples  Q test samples"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.bootstrap import bootstrap_interval
from openjepa.core.errors import UserError
from openjepa.core.options import PooledKind
from openjepa.core.types import Score
from openjepa.data.wrappers import Subset
from openjepa.evaluation.feature_store import Features
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.splits import Fold


class EncoderPair(NamedTuple):
    """The encoder with the training data and with the test data."""

    train: DatasetEncoder
    test: DatasetEncoder


class SplitFeatures(NamedTuple):
    """Features of training and test data; the same samples twice if folds divide them."""

    train: Features
    test: Features
    views: EncoderPair | None = None  # the encoder behind the features; None for a baseline such as raw pixels
    targets: tuple[Float[Tensor, "S"], Float[Tensor, "Q"]] | None = None  # of the labeled rows, for regression
    groups: Int[Tensor, "S"] | None = None  # of the labeled training rows, which settings are selected on, apart

    def kind(self, features: PooledKind) -> str:
        """Return the kind of features to use; raw pixels have only one."""
        return features if features in self.train.kinds else "last"

    def select(self, fold: Fold) -> SplitFeatures:
        """Return one fold of labeled rows, without computing features again."""
        rows, own = (self.train.labeled[fold.train], self.test.labeled[fold.test]), self.targets
        views = self.views and EncoderPair(
            self.views.train._replace(data=Subset(self.views.train.data, rows[0])),
            self.views.test._replace(data=Subset(self.views.test.data, rows[1])),
        )
        targets = own and (own[0][fold.train], own[1][fold.test])
        groups = None if self.groups is None else self.groups[fold.train]
        return SplitFeatures(select_rows(self.train, rows[0]), select_rows(self.test, rows[1]), views, targets, groups)


def select_rows(features: Features, index: Int[Tensor, "R"]) -> Features:
    """Return some rows of features."""
    return Features({kind: x[index] for kind, x in features.kinds.items()}, features.label[index])


class Evidence(NamedTuple):
    """The predictions behind a score, for the confusion matrix."""

    predicted: Int[Tensor, "Q"]
    truth: Int[Tensor, "Q"]
    model: Any = None  # the fitted model, if there is only one


@dataclass(frozen=True)
class ProbeInput:
    """The input of an evaluator: one encoder's features on one task, and the folds that divide them."""

    task: str
    name: str  # of the encoder, in the scores
    features: SplitFeatures
    classes: int
    folds: tuple[Fold, ...] = ()  # empty: training and test data are separate
    groups: Int[Tensor, "S"] | None = None  # group of each labeled training sample; intervals resample whole groups
    separate_groups: Int[Tensor, "Q"] | None = None  # group of each labeled test sample, if there are no folds
    target_unit: str = ""  # unit of the real-valued targets
    evidence: dict[str, Evidence] = field(default_factory=dict)  # metric -> predictions, as evaluators record them

    def parts(self) -> Iterator[SplitFeatures]:
        """Yield what each fold trains on and is tested on."""
        if not self.folds:
            yield self.features
        for fold in self.folds:
            yield self.features.select(fold)

    def train_groups(self) -> Iterator[Int[Tensor, "R"] | None]:
        """Yield the group of each training sample of each fold; None without groups."""
        groups = self.groups
        if groups is None or not self.folds:
            yield groups
        else:
            yield from (groups[fold.train] for fold in self.folds)

    def test_groups(self) -> Int[Tensor, "Q"] | None:
        """Return the group of each test sample, in the order of the folds; None without groups."""
        if not self.folds:
            return self.separate_groups
        if self.groups is None:
            return None
        return torch.cat([self.groups[fold.test] for fold in self.folds])


@runtime_checkable
class Evaluator(Protocol):
    """Measures features; a frozen dataclass in evaluation/probes/, whose file's name is its name in --probes.

    A field that is named like a setting of `jepa probe` takes that setting's value. If the class attribute
    `uses_all_layers` is True, `last4` features are computed, too.
    """

    def run(self, subject: ProbeInput) -> Iterator[Score]: ...


class Prediction(NamedTuple):
    """What a classifier predicts for the test samples of one fold."""

    predicted: Int[Tensor, "Q"]
    chosen: dict[str, Any]  # what was selected
    model: Any = None


def classification_score(
    subject: ProbeInput, metric: str, predict: Callable[[SplitFeatures], Prediction]
) -> Iterator[Score]:
    """Yield the accuracy over the held-out predictions of all folds, and record them."""
    check_classes(subject, metric)
    predictions, truth = [], []
    for part in subject.parts():
        predictions.append(predict(part))
        truth.append(part.test.y)
    predicted, labels = torch.cat([each.predicted for each in predictions]), torch.cat(truth)
    subject.evidence[metric] = Evidence(predicted, labels, predictions[0].model if len(predictions) == 1 else None)
    correct = (predicted == labels).float()
    yield percent_score(subject, metric, correct, merge_chosen([each.chosen for each in predictions]))


def percent_score(subject: ProbeInput, metric: str, correct: Float[Tensor, "Q"], chosen: dict[str, Any]) -> Score:
    """Compute the mean of fractions in percent, with its bootstrap interval over groups or samples."""
    low, high = bootstrap_interval(correct, groups=subject.test_groups())
    return Score(subject.task, subject.name, metric, 100 * correct.mean().item(), 100 * low, 100 * high, chosen=chosen)


def check_classes(subject: ProbeInput, metric: str) -> None:
    """Raise UserError if the data has no classes."""
    if subject.classes < 2:
        raise UserError(f"{metric} needs classes, and {subject.task} has real-valued targets: use --probes ridge")


def merge_chosen(chosen: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge what each fold selected: what all folds share, and the list of all under `folds`."""
    first, *others = chosen
    if not others:
        return first
    shared = {name: value for name, value in first.items() if all(each.get(name) == value for each in others)}
    return {**shared, "folds": chosen}


def metric_name(name: str, *options: str) -> str:
    """Format a metric's name for tables: with its recipe and features, unless they are the defaults."""
    return " ".join([name, *(option for option in options if option not in ("", "default", "last"))])
