"""The paper's linear probe: many heads on frozen features, trained together in one pass.

S samples  B batch  F width of features  G heads of a group  K classes
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.errors import UserError

EPSILON = 1e-5  # of batch norm

VALIDATION = 0.1  # share of the training data that chooses the head

Batches = Callable[[int], Iterator[tuple[dict[str, Tensor], Tensor]]]  # epoch → (features of each kind, labels)


class Labelled(NamedTuple):
    """Features of each kind, which may lie in a memory map, and labels."""

    kinds: dict[str, Float[Tensor, "S F"]]
    label: Int[Tensor, "S"]


@dataclass(frozen=True)
class Recipe:
    """How heads are trained: the optimiser, its schedule, and the sweep. Learning rates are for a batch of 256."""

    optimizer: Literal["sgd", "lars"] = "sgd"
    lr: float = 0.1
    lr_multipliers: tuple[float, ...] = (10.0, 1.0, 0.1, 0.01)
    weight_decays: tuple[float, ...] = (0.0, 5e-4)
    norms: tuple[bool, ...] = (False, True)  # without and with batch norm before the linear layer
    batch_size: int = 256
    epochs: int = 30
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[int, ...] = ()  # epochs after which the rate is divided by ten
    momentum: float = 0.9
    nesterov: bool = True


RecipeName = Literal["default", "in1k", "cifar100", "places205", "inat18", "clevr-count", "clevr-dist"]

RECIPES: dict[RecipeName, Recipe] = {  # by name; sources in docs/evaluation.md
    "default": Recipe(),
    "in1k": Recipe(
        "lars", 0.1, (1.0, 0.1), (5e-4, 0.0), batch_size=16384, epochs=50, schedule="steps", milestones=(15, 30, 45), nesterov=False
    ),
    "cifar100": Recipe("sgd", 0.01, (1.0,), (5e-4,), epochs=28, schedule="steps", milestones=(8, 16, 24)),
    "places205": Recipe("sgd", 0.01, (1.0,), (5e-4,), epochs=14, schedule="steps", milestones=(4, 8, 12)),
    "inat18": Recipe("sgd", 0.01, (1.0,), (5e-4,), epochs=84, schedule="steps", milestones=(24, 48, 72)),
    "clevr-count": Recipe("sgd", 0.01, (1.0,), (5e-4,), epochs=50),
    "clevr-dist": Recipe("sgd", 0.01, (1.0,), (5e-4,), epochs=100),
}  # fmt: skip


class Head(NamedTuple):
    """One point of the sweep."""

    kind: str  # of features: last, last4
    norm: bool
    multiplier: float
    weight_decay: float


@dataclass
class Group:
    """The heads that share an input: one matrix product serves them all."""

    heads: list[Head]
    weight: Float[Tensor, "G K F"]
    bias: Float[Tensor, "G K"]
    scale: Float[Tensor, "G F"]  # of batch norm; ones and not trained without it
    shift: Float[Tensor, "G F"]
    mean: Float[Tensor, "F"]  # running statistics
    variance: Float[Tensor, "F"]
    speed: dict[str, Tensor] = field(default_factory=dict)  # momentum buffers

    @property
    def norm(self) -> bool:
        return self.heads[0].norm

    def logits(self, x: Float[Tensor, "B F"], training: bool = False) -> Float[Tensor, "B G K"]:
        """Batch norm's scale and shift are folded into the linear layer, so heads share the normalised input."""
        weight, bias = self.weight, self.bias
        if self.norm:
            x = self.normalised(x, training)
            bias = bias + (weight * self.shift[:, None]).sum(-1)
            weight = weight * self.scale[:, None]
        return (x @ weight.flatten(0, 1).T + bias.flatten()).view(len(x), *bias.shape)

    def normalised(self, x: Float[Tensor, "B F"], training: bool) -> Float[Tensor, "B F"]:
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = x.mean(0), x.var(0, unbiased=False)
            self.mean.lerp_(mean, 0.1)
            self.variance.lerp_(variance * len(x) / max(1, len(x) - 1), 0.1)
        return (x - mean) * (variance + EPSILON).rsqrt()

    def predict(self, x: Float[Tensor, "B F"]) -> Int[Tensor, "G B"]:
        """Each head's classes."""
        return self.logits(x.to(self.weight.device)).argmax(2).T.cpu()

    def finite(self) -> list[bool]:
        """Of each head, whether its weights are numbers still."""
        return self.weight.isfinite().all((1, 2)).tolist()

    def trained(self) -> dict[str, Tensor]:
        names = ("weight", "bias", "scale", "shift") if self.norm else ("weight", "bias")
        return {name: getattr(self, name) for name in names}


def sweep(recipe: Recipe, kinds: tuple[str, ...]) -> list[Head]:
    return [
        Head(kind, norm, multiplier, decay)
        for kind in kinds
        for norm in recipe.norms
        for multiplier in recipe.lr_multipliers
        for decay in recipe.weight_decays
    ]


def grouped(heads: list[Head], widths: dict[str, int], classes: int, device: torch.device, seed: int) -> list[Group]:
    """Fresh heads, weights normal of deviation 0.01 as VISSL's, biases 0; a head's weights do not depend on the others."""
    groups: dict[tuple[str, bool], list[Head]] = {}
    for head in heads:
        groups.setdefault((head.kind, head.norm), []).append(head)
    made = []
    for (kind, _), members in groups.items():
        width, count = widths[kind], len(members)
        first = torch.randn(classes, width, generator=torch.Generator().manual_seed(seed)) * 0.01
        group = Group(
            members,
            weight=first.repeat(count, 1, 1).to(device),
            bias=torch.zeros(count, classes, device=device),
            scale=torch.ones(count, width, device=device),
            shift=torch.zeros(count, width, device=device),
            mean=torch.zeros(width, device=device),
            variance=torch.ones(width, device=device),
        )
        for parameter in group.trained().values():
            parameter.requires_grad_()
        made.append(group)
    return made


def fit(
    batches: Batches,
    steps: int,
    heads: list[Head],
    widths: dict[str, int],
    classes: int,
    recipe: Recipe,
    seed: int = 0,
    device: torch.device | None = None,
) -> list[Group]:
    """Heads trained side by side for `recipe.epochs` of `steps` each; each as if it were alone."""
    groups = grouped(heads, widths, classes, device or torch.device("cpu"), seed)
    total = recipe.epochs * steps
    for epoch in range(recipe.epochs):
        for number, (features, label) in enumerate(batches(epoch)):
            rate = recipe.lr * recipe.batch_size / 256 * pace(recipe, epoch, (epoch * steps + number) / total)
            for group in groups:
                x = features[group.heads[0].kind].to(group.weight.device)
                step(group, x, label.to(x.device), rate, recipe)
    return groups


def pace(recipe: Recipe, epoch: int, progress: float) -> float:
    """The schedule's factor, from 1 down."""
    if recipe.schedule == "cosine":
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
    return 0.1 ** sum(epoch >= milestone for milestone in recipe.milestones)


@torch.no_grad()
def step(group: Group, x: Float[Tensor, "B F"], label: Int[Tensor, "B"], rate: float, recipe: Recipe) -> None:
    """One update of every head of a group. Batch norm's parameters are not decayed (VISSL)."""
    parameters = group.trained()
    with torch.enable_grad():
        logits = group.logits(x, training=True)
        truth = label[:, None].expand(-1, len(group.heads))
        loss = F.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="sum") / len(x)
        gradients = torch.autograd.grad(loss, list(parameters.values()))
    for (name, tensor), gradient in zip(parameters.items(), gradients, strict=True):
        column = (-1,) + (1,) * (tensor.ndim - 1)
        lr = rate * tensor.new_tensor([head.multiplier for head in group.heads]).view(column)
        decay = tensor.new_tensor([head.weight_decay for head in group.heads]).view(column)
        if name in ("weight", "bias"):
            gradient = gradient + decay * tensor
        if recipe.optimizer == "lars" and name == "weight":
            gradient = gradient * trust(tensor, gradient)
        speed = group.speed.get(name)
        speed = gradient if speed is None else recipe.momentum * speed + gradient
        group.speed[name] = speed
        tensor -= lr * (gradient + recipe.momentum * speed if recipe.nesterov else speed)


def trust(weight: Float[Tensor, "G K F"], update: Float[Tensor, "G K F"], eta: float = 1e-3) -> Float[Tensor, "G 1 1"]:
    """LARS (You et al., 2017): η‖w‖/‖update‖ for each head, 1 where either is 0. Vectors are left out."""
    size, length = (each.flatten(1).norm(dim=1).view(-1, 1, 1) for each in (weight, update))
    return torch.where((size > 0) & (length > 0), eta * size / length.clamp(min=1e-12), 1.0)


def rows(train: Labelled, index: Int[Tensor, "R"], recipe: Recipe, seed: int) -> Batches:
    """Batches over stored features, in an order that (seed, epoch) decide; the last, smaller one is kept."""
    kinds, label = train

    def epoch_of(epoch: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        for part in index[torch.randperm(len(index), generator=generator)].split(recipe.batch_size):
            yield {kind: x[part] for kind, x in kinds.items()}, label[part]

    return epoch_of


class Outcome(NamedTuple):
    """The head that was chosen, and what it says of the test data."""

    head: Head
    validation: float  # accuracy that chose it
    predicted: Int[Tensor, "R"]


@torch.no_grad()
def probe(
    train: Labelled,
    test: Labelled,
    classes: int,
    recipe: Recipe = RECIPES["default"],
    seed: int = 0,
    crops: Callable[[Tensor], Batches] | None = None,
    device: torch.device | None = None,
) -> Outcome:
    """The best of the sweep by a tenth of the training data, trained again on all of it, on the test data.

    With `crops`, heads are trained on what it gives for the rows it is given, random crops as in the paper, and chosen
    and tested on the features. Differs from the paper, which reports the best by the test set itself.
    """
    label = train.label
    if len(label) < 2:
        raise UserError("a linear probe needs two labelled images at least")
    widths = {kind: x.shape[1] for kind, x in train.kinds.items()}
    shuffled = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    held, kept = shuffled.tensor_split([max(1, int(len(label) * VALIDATION))])

    def run(heads: list[Head], index: Tensor) -> list[Group]:
        steps = math.ceil(len(index) / recipe.batch_size)
        batches = crops(index) if crops else rows(train, index, recipe, seed)
        return fit(batches, steps, heads, widths, classes, recipe, seed, device)

    scores = {}
    for group in run(sweep(recipe, tuple(widths)), kept):
        answers = group.predict(train.kinds[group.heads[0].kind][held])
        for head, answer, whole in zip(group.heads, answers, group.finite(), strict=True):
            if whole:
                scores[head] = float((answer == label[held]).float().mean())
    for best in sorted(scores, key=lambda head: -scores[head]):
        (group,) = run([best], shuffled)
        if group.finite()[0]:  # a rate that is just low enough for nine tenths of the data may be too high for all
            predicted = torch.cat([group.predict(part)[0] for part in test.kinds[best.kind].split(4096)])
            return Outcome(best, scores[best], predicted)
    raise UserError("no head of the linear probe stays finite: are there numbers in the features that are not?")
