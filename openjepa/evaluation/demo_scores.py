"""Measure several tasks on the same features: the tables of `jepa demo`.   S training samples  R test samples"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.bootstrap import bootstrap_interval
from openjepa.core.types import Score
from openjepa.evaluation.probes.logistic import logistic_probe


class TaskLabels(NamedTuple):
    """The labels of a task, and its number of classes."""

    train: Int[Tensor, "S"]
    test: Int[Tensor, "R"]
    classes: int


class FeaturePair(NamedTuple):
    """The features of training and test samples."""

    train: Float[Tensor, "S D"]
    test: Float[Tensor, "R D"]


def measure_tasks(
    prefix: str, features: Mapping[str, FeaturePair], tasks: Mapping[str, TaskLabels], seed: int
) -> list[Score]:
    """Return the accuracy of L2 logistic regression on each kind of features, for each task.

    The strength of the regularization is chosen on a validation split. The last rows are what features that say nothing
    would give: the most frequent class.
    """
    scores = []
    for name, (train, test) in features.items():
        for task, labels in tasks.items():
            probe = logistic_probe(train, labels.train, test, labels.classes, seed)
            chosen = {"strength": probe.strength, "validation": probe.validation, "labels": len(labels.train)}
            scores.append(accuracy_score(f"{prefix}-{task}", name, probe.predicted, labels.test, chosen))
    for task, labels in tasks.items():
        frequent = labels.test.bincount().argmax().expand(len(labels.test))
        scores.append(accuracy_score(f"{prefix}-{task}", "most frequent class", frequent, labels.test, {}))
    return scores


def accuracy_score(
    task: str, features: str, predicted: Int[Tensor, "R"], truth: Int[Tensor, "R"], chosen: dict[str, Any]
) -> Score:
    """Return the accuracy of predictions in percent, with its interval."""
    correct = (predicted == truth).float()
    low, high = bootstrap_interval(correct)
    value = 100 * correct.mean().item()
    return Score(task, features, "logistic", value, 100 * low, 100 * high, chosen=chosen)
