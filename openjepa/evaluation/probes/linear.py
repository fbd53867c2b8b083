"""The paper's linear probe: many linear heads on frozen features, trained together in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.evaluation.probes.linear_heads import HeadGroup, LinearHead, create_groups, schedule_factor, update_group
from openjepa.evaluation.probes.linear_recipes import LINEAR_RECIPES, VALIDATION_FRACTION, LinearRecipe

Batches = Callable[[int], Iterator[tuple[dict[str, Tensor], Tensor]]]  # epoch → (features of each kind, labels)


class LabeledFeatures(NamedTuple):
    """Features of each kind, which may lie in a memory map, and labels."""

    kinds: dict[str, Float[Tensor, "S F"]]
    label: Int[Tensor, "S"]


def sweep_heads(recipe: LinearRecipe, kinds: tuple[str, ...]) -> list[LinearHead]:
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
    """Heads trained side by side for `recipe.epochs` of `steps` each; each as if it were alone."""
    groups = create_groups(heads, widths, classes, device or torch.device("cpu"), seed)
    total = recipe.epochs * steps
    for epoch in range(recipe.epochs):
        for number, (features, label) in enumerate(batches(epoch)):
            rate = (
                recipe.lr * recipe.batch_size / 256 * schedule_factor(recipe, epoch, (epoch * steps + number) / total)
            )
            for group in groups:
                x = features[group.heads[0].kind].to(group.weight.device)
                update_group(group, x, label.to(x.device), rate, recipe)
    return groups


def feature_batches(train: LabeledFeatures, index: Int[Tensor, "R"], recipe: LinearRecipe, seed: int) -> Batches:
    """Batches over stored features, in an order that (seed, epoch) decide; the last, smaller one is kept."""
    kinds, label = train

    def epoch_of(epoch: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        for part in index[torch.randperm(len(index), generator=generator)].split(recipe.batch_size):
            yield {kind: x[part] for kind, x in kinds.items()}, label[part]

    return epoch_of


class LinearResult(NamedTuple):
    """The head that was chosen, and what it says of the test data."""

    head: LinearHead
    validation: float  # accuracy that chose it
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
    """The best of the sweep by a tenth of the training data, trained again on all of it, on the test data.

    With `crops`, heads are trained on what it gives for the rows it is given, random crops as in the paper, and chosen
    and tested on the features. Differs from the paper, which reports the best by the test set itself.
    """
    label = train.label
    if len(label) < 2:
        raise UserError("a linear probe needs two labelled images at least")
    widths = {kind: x.shape[1] for kind, x in train.kinds.items()}
    shuffled = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    held, kept = shuffled.tensor_split([max(1, int(len(label) * VALIDATION_FRACTION))])

    def run(heads: list[LinearHead], index: Tensor) -> list[HeadGroup]:
        steps = math.ceil(len(index) / recipe.batch_size)
        batches = crops(index) if crops else feature_batches(train, index, recipe, seed)
        return fit_heads(batches, steps, heads, widths, classes, recipe, seed, device)

    scores = {}
    for group in run(sweep_heads(recipe, tuple(widths)), kept):
        answers = group.predict(train.kinds[group.heads[0].kind][held])
        for head, answer, whole in zip(group.heads, answers, group.finite(), strict=True):
            if whole:
                scores[head] = float((answer == label[held]).float().mean())
    for best in sorted(scores, key=lambda head: -scores[head]):
        (group,) = run([best], shuffled)
        if group.finite()[0]:  # a rate that is just low enough for nine tenths of the data may be too high for all
            predicted = torch.cat([group.predict(part)[0] for part in test.kinds[best.kind].split(4096)])
            return LinearResult(best, scores[best], predicted)
    raise UserError("no head of the linear probe stays finite: are there numbers in the features that are not?")
