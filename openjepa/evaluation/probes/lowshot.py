"""The low-shot probe: few labels per class, over several random subsets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.bootstrap import bootstrap_interval
from openjepa.core.console import warn
from openjepa.core.errors import UserError
from openjepa.core.options import PooledKind
from openjepa.core.types import Score
from openjepa.evaluation.evaluator import ProbeInput, SplitFeatures, check_classes, metric_name, percent_score
from openjepa.evaluation.probes.logistic import fit_logistic

STRENGTH = 1e-2  # regularization of logistic regression on standardized features; too few labels to select it


class LowShotResult(NamedTuple):
    """The result of one random subset of labels."""

    shots: int  # labels in total
    correct: Float[Tensor, "R"]  # 1 where a test image was classified correctly, else 0

    @property
    def accuracy(self) -> float:
        return self.correct.mean().item()


def lowshot_probe(
    answer: Callable[[Int[Tensor, "K"]], Int[Tensor, "R"]],
    label: Int[Tensor, "S"],
    truth: Int[Tensor, "R"],
    classes: int,
    shots: int | float,
    repeats: int = 5,
    seed: int = 0,
    groups: Int[Tensor, "S"] | None = None,
) -> list[LowShotResult]:
    """Score `answer`, which maps labeled rows to test predictions, on `repeats` random subsets of labels.

    Each subset has `shots` labels per class or, if `shots` is below 1, that fraction of each class. Source: paper,
    section 5: 1 % of ImageNet, there one fixed list. Raises UserError if a class has fewer images than shots.
    """
    results = []
    for repeat in range(repeats):
        generator = torch.Generator().manual_seed(1_000_003 * seed + repeat)
        index = choose_labeled(label, classes, shots, generator, groups)
        results.append(LowShotResult(len(index), (answer(index) == truth).float()))
    return results


def choose_labeled(
    label: Int[Tensor, "S"],
    classes: int,
    shots: int | float,
    generator: torch.Generator,
    groups: Int[Tensor, "S"] | None = None,
) -> Int[Tensor, "K"]:
    """Draw the samples that keep their label: `shots` per class or, below 1, that fraction and at least one.

    With groups, such as subjects, they come from as many groups as possible: a group gives a second one after all gave
    one.
    """
    if shots <= 0 or (shots >= 1 and shots != int(shots)):
        raise UserError(f"--shots must be a whole number of labels per class or a fraction below 1, got {shots:g}")
    chosen = []
    for number in range(classes):
        rows = torch.where(label == number)[0]
        if not len(rows):
            raise UserError(f"class {number} has no training image: drop lowshot from --probes, or add images")
        count = int(shots) if shots >= 1 else max(1, round(shots * len(rows)))
        if count > len(rows):
            raise UserError(f"class {number} has {len(rows)} images, fewer than {count} shots: try --shots {len(rows)}")
        order = rows[torch.randperm(len(rows), generator=generator)]
        chosen.append((order if groups is None else spread_over_groups(order, groups[order]))[:count])
    return torch.cat(chosen)


def spread_over_groups(rows: Int[Tensor, "R"], groups: Int[Tensor, "R"]) -> Int[Tensor, "R"]:
    """Reorder rows: first one of each group, then a second one of each, and so on."""
    turns, count = [], Counter()
    for group in groups.tolist():
        turns.append(count[group])
        count[group] += 1
    return rows[torch.tensor(turns).argsort(stable=True)]


Answer = Callable[[Tensor], Tensor]  # rows of the training data that keep their label -> predictions of the test data


@dataclass(frozen=True)
class LabelSubsets:
    """Random subsets of labels: how many labels, how often, from which seed."""

    shots: tuple[float, ...]
    repeats: int
    seed: int


def lowshot_scores(
    subject: ProbeInput,
    metric: str,
    answer_of: Callable[[SplitFeatures], Answer],
    subsets: LabelSubsets,
    chosen: dict[str, Any],
) -> Iterator[Score]:
    """Yield for each number of shots the mean accuracy over random subsets of labels, with its interval.

    The interval is over the subsets or, with only one of them, over the test samples.
    """
    check_classes(subject, metric or "lowshot")
    for shots in possible_shots(subject, subsets.shots):
        repeats = []
        for part, groups in zip(subject.parts(), subject.train_groups(), strict=True):
            y, truth = part.train.y, part.test.y
            settings = (subject.classes, shots, subsets.repeats, subsets.seed, groups)
            repeats.append(lowshot_probe(answer_of(part), y, truth, *settings))
        correct = [torch.cat([fold.correct for fold in repeat]) for repeat in zip(*repeats, strict=True)]
        values = torch.tensor([each.mean().item() for each in correct])
        label = f"{shots:g} a class" if shots >= 1 else f"{100 * shots:g} % of labels"
        spread = {"draws": values.tolist(), "deviation": float(values.std(correction=0)), "labels": repeats[0][0].shots}
        name, details = metric_name(label, metric), {**chosen, **spread}
        if len(correct) == 1:
            yield percent_score(subject, name, correct[0], details)
        else:
            low, high = bootstrap_interval(values)
            value = 100 * float(values.mean())
            yield Score(subject.task, subject.name, name, value, 100 * low, 100 * high, chosen=details)


def possible_shots(subject: ProbeInput, shots: tuple[float, ...]) -> list[float]:
    """Return the numbers of labels per class that every class has; warn of the others, and go on without them.

    Raises UserError if every number is too large.
    """
    smallest = min(int(part.train.y.bincount(minlength=subject.classes).min()) for part in subject.parts())
    possible = [each for each in shots if each <= smallest]
    if not possible and shots and smallest:
        raise UserError(f"the smallest class has {smallest} images to train on: type --shots {smallest}")
    if 0 < len(possible) < len(shots):
        left_out = ", ".join(f"{each:g}" for each in shots if each not in possible)
        warn(f"the smallest class has {smallest} images to train on: {left_out} labels per class are left out")
    return possible or list(shots)


@dataclass(frozen=True)
class LowShot:
    """Measure logistic regression on few labels, over several random subsets of labels."""

    features: PooledKind = "last"
    shots: tuple[float, ...] = (1.0, 10.0)
    repeats: int = 5
    seed: int = 0

    def run(self, subject: ProbeInput) -> Iterator[Score]:
        """Yield the mean accuracy for each number of shots."""
        kind = subject.features.kind(self.features)

        def answer_of(part: SplitFeatures) -> Answer:
            x, y, test = part.train[kind], part.train.y, part.test[kind]
            return lambda rows: fit_logistic(x[rows], y[rows], subject.classes, STRENGTH).predict(test)

        subsets = LabelSubsets(self.shots, self.repeats, self.seed)
        return lowshot_scores(subject, "" if kind == "last" else kind, answer_of, subsets, {"kind": kind})
