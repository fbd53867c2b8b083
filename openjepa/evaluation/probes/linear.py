"""The paper's linear probe: many linear heads on frozen features, trained together in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.types import Score
from openjepa.evaluation.evaluator import (
    Prediction,
    ProbeInput,
    SplitFeatures,
    classification_score,
    metric_name,
)
from openjepa.evaluation.probes.linear_heads import HeadGroup, LinearHead, create_groups, schedule_factor, update_group
from openjepa.evaluation.probes.linear_recipes import LINEAR_RECIPES, LinearRecipe, LinearRecipeName
from openjepa.evaluation.probes.split import validation_split
from openjepa.interop.pretrained import POOLED_KINDS

Batches = Callable[[int], Iterator[tuple[dict[str, Tensor], Tensor]]]  # epoch -> (features of each kind, labels)


class LabeledFeatures(NamedTuple):
    """Labels, and features of each kind, which may be memory-mapped."""

    kinds: dict[str, Float[Tensor, "S F"]]
    label: Int[Tensor, "S"]


def sweep_heads(recipe: LinearRecipe, kinds: tuple[str, ...]) -> list[LinearHead]:
    """List the heads of a recipe's sweep on every kind of features."""
    return [
        LinearHead(kind, norm, multiplier, decay)
        for kind in kinds
        for norm in recipe.norms
        for multiplier in recipe.lr_multipliers
        for decay in recipe.weight_decays
    ]


def fit_heads(
    batches: Batches,
    steps: int,
    heads: list[LinearHead],
    widths: dict[str, int],
    classes: int,
    recipe: LinearRecipe,
    seed: int = 0,
    device: torch.device | None = None,
) -> list[HeadGroup]:
    """Train heads side by side for `recipe.epochs` epochs of `steps` steps; each is trained as if it were alone."""
    groups = create_groups(heads, widths, classes, device or torch.device("cpu"), seed)
    total = recipe.epochs * steps
    for epoch in range(recipe.epochs):
        for number, (features, label) in enumerate(batches(epoch)):
            progress = (epoch * steps + number) / total
            lr = recipe.lr * recipe.batch_size / 256 * schedule_factor(recipe, epoch, progress)
            for group in groups:
                x = features[group.heads[0].kind].to(group.weight.device)
                update_group(group, x, label.to(x.device), lr, recipe)
    return groups


def feature_batches(train: LabeledFeatures, index: Int[Tensor, "R"], recipe: LinearRecipe, seed: int) -> Batches:
    """Iterate over stored features in an order keyed by (seed, epoch); the last batch may be smaller."""
    kinds, label = train

    def batches_of(epoch: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        for part in index[torch.randperm(len(index), generator=generator)].split(recipe.batch_size):
            yield {kind: x[part] for kind, x in kinds.items()}, label[part]

    return batches_of


class LinearResult(NamedTuple):
    """The selected head and its predictions on the test data."""

    head: LinearHead
    validation: float  # validation accuracy by which it was selected
    predicted: Int[Tensor, "R"]


@torch.no_grad()
def linear_probe(
    train: LabeledFeatures,
    test: LabeledFeatures,
    classes: int,
    recipe: LinearRecipe = LINEAR_RECIPES["default"],
    seed: int = 0,
    crops: Callable[[Tensor], Batches] | None = None,
    device: torch.device | None = None,
) -> LinearResult:
    """Select the best head of the sweep on 10 % of the training data, retrain it on all of it, and predict.

    With `crops`, a function from rows to batches, heads are trained on random crops as in the paper, but selected and
    tested on the stored features. Differs: the paper reports the best head on the test set itself.
    """
    label = train.label
    if len(label) < 2:
        raise UserError("the linear probe requires at least 2 labeled images: add images to --data.root")
    widths = {kind: x.shape[1] for kind, x in train.kinds.items()}
    shuffled, validation, training = validation_split(len(label), seed)

    def fit(heads: list[LinearHead], index: Tensor) -> list[HeadGroup]:
        steps = math.ceil(len(index) / recipe.batch_size)
        batches = crops(index) if crops else feature_batches(train, index, recipe, seed)
        return fit_heads(batches, steps, heads, widths, classes, recipe, seed, device)

    scores = {}
    for group in fit(sweep_heads(recipe, tuple(widths)), training):
        answers = group.predict(train.kinds[group.heads[0].kind][validation])
        for head, answer, finite in zip(group.heads, answers, group.finite(), strict=True):
            if finite:
                scores[head] = float((answer == label[validation]).float().mean())
    for best in sorted(scores, key=lambda head: -scores[head]):
        (group,) = fit([best], shuffled)
        if group.finite()[0]:  # a learning rate just low enough for 90 % of the data may diverge on all of it
            predicted = torch.cat([group.predict(part)[0] for part in test.kinds[best.kind].split(4096)])
            return LinearResult(best, scores[best], predicted)
    raise UserError("every head of the linear probe diverged: check that the encoder's features are finite")


def crop_batches(part: SplitFeatures, recipe: LinearRecipe, seed: int) -> Callable[[Tensor], Batches]:
    """Return a function from training rows to batches of features of random crops, different in each epoch."""
    assert part.views
    encoder, train = part.views.train, part.train

    def crops(index: Tensor) -> Batches:
        samples, y = train.labeled[index], train.label[index]
        outputs_of = encoder.epochs(samples, recipe.batch_size, seed, True, patches=False)

        def batches_of(epoch: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
            for output, rows in outputs_of(epoch):
                yield {kind: getattr(output, kind) for kind in POOLED_KINDS}, y[rows]

        return batches_of

    return crops


@dataclass(frozen=True)
class Linear:
    """Measure the sweep of linear heads, on stored features or on random crops."""

    uses_all_layers: ClassVar[bool] = True
    linear: LinearRecipeName = "default"
    augment: bool = False  # train on random crops; a baseline without an encoder trains on its stored features
    seed: int = 0

    def run(self, subject: ProbeInput) -> Iterator[Score]:
        """Yield the accuracy of the head that validation selected."""
        recipe, augmented = LINEAR_RECIPES[self.linear], self.augment and subject.features.views is not None

        def predict(part: SplitFeatures) -> Prediction:
            train, test = (
                LabeledFeatures({kind: each[kind] for kind in each.kinds}, each.y) for each in (part.train, part.test)
            )
            crops = crop_batches(part, recipe, self.seed) if augmented else None
            device = part.views.train.device.device if part.views else None
            result = linear_probe(train, test, subject.classes, recipe, self.seed, crops, device)
            chosen = {**result.head._asdict(), "validation": result.validation, "recipe": self.linear}
            return Prediction(result.predicted, chosen)

        return classification_score(subject, metric_name("linear", self.linear, "crops" if augmented else ""), predict)
