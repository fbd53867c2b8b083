"""The attentive probe: a learned query pools the patch tokens of a frozen encoder, then a linear layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.probes.linear_recipes import VALIDATION_FRACTION
from openjepa.nn.init import initialize
from openjepa.nn.pooling import AttentivePool

EPOCHS, BATCH_SIZE = 20, 256


class SweepPoint(NamedTuple):
    """One point of the sweep."""

    lr: float
    weight_decay: float


SWEEP = tuple(SweepPoint(lr, decay) for lr in (1e-3, 3e-4, 1e-4) for decay in (0.01, 0.4))  # V-JEPA 2's range, thinned


class AttentiveResult(NamedTuple):
    """The head that was chosen, and what it says of the test data."""

    head: SweepPoint
    validation: float  # accuracy that chose it
    predicted: Int[Tensor, "Q"]


class AttentiveClassifier(nn.Module):
    """Attentive pooling and a linear layer."""

    def __init__(self, dim: int, num_heads: int, classes: int, seed: int):
        super().__init__()
        self.pool = AttentivePool(dim, num_heads)
        self.linear = nn.Linear(dim, classes)
        initialize(self, torch.Generator().manual_seed(seed))

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B K"]:
        return self.linear(self.pool(tokens))


def attentive_probe(
    train: DatasetEncoder,
    test: DatasetEncoder,
    labelled: tuple[Int[Tensor, "R"], Int[Tensor, "R"]],
    asked: Int[Tensor, "Q"],
    classes: int,
    sweep: tuple[SweepPoint, ...] = SWEEP,
    epochs: int | None = None,
    seed: int = 0,
    augment: bool = False,
) -> AttentiveResult:
    """The best of the sweep by a tenth of the training data, trained again on all of it, on the test data.

    `labelled` names training samples and their labels, `asked` test samples. All heads of the sweep see the same tokens.
    """
    index, label = labelled
    shuffled = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    held, kept = shuffled.tensor_split([max(1, int(len(label) * VALIDATION_FRACTION))])

    def run(heads: tuple[SweepPoint, ...], rows: Tensor) -> list[AttentiveClassifier]:
        return fit_classifiers(train, index[rows], label[rows], classes, heads, epochs or EPOCHS, seed, augment)

    answers = predict_classes(train, index[held], run(sweep, kept))
    scores = [float((answer == label[held]).float().mean()) for answer in answers]
    best = scores.index(max(scores))
    (predicted,) = predict_classes(test, asked, run((sweep[best],), shuffled))
    return AttentiveResult(sweep[best], scores[best], predicted)


def fit_classifiers(
    viewer: DatasetEncoder,
    index: Int[Tensor, "R"],
    label: Int[Tensor, "R"],
    classes: int,
    heads: tuple[SweepPoint, ...],
    epochs: int,
    seed: int,
    augment: bool,
) -> list[AttentiveClassifier]:
    """A classifier for each head by AdamW, learning rate falling as a cosine to 0."""
    dim, place = viewer.encode(index[:1]).patches.shape[-1], viewer.device
    count = max(1, dim // 64) if dim % 64 == 0 else 1
    models = [AttentiveClassifier(dim, count, classes, seed).to(place.device) for _ in heads]
    solvers = [
        torch.optim.AdamW(model.parameters(), lr=head.lr, weight_decay=head.weight_decay)
        for model, head in zip(models, heads, strict=True)
    ]
    total, step = epochs * math.ceil(len(index) / BATCH_SIZE), 0
    seen_in = viewer.epochs(index, BATCH_SIZE, seed, augment)
    for epoch in range(epochs):
        for seen, rows in seen_in(epoch):
            truth = label[rows].to(place.device)
            for model, solver, head in zip(models, solvers, heads, strict=True):
                for group in solver.param_groups:
                    group["lr"] = head.lr * 0.5 * (1 + math.cos(math.pi * step / total))
                solver.zero_grad(set_to_none=True)
                with torch.enable_grad(), place.autocast():
                    loss = F.cross_entropy(model(seen.patches).float(), truth)
                loss.backward()
                solver.step()
            step += 1
    return models


@torch.no_grad()
def predict_classes(
    viewer: DatasetEncoder, index: Int[Tensor, "Q"], models: list[AttentiveClassifier]
) -> Iterator[Int[Tensor, "Q"]]:
    """Each model's classes for some samples; what is seen is shared."""
    answers: list[list[Tensor]] = [[] for _ in models]
    for part in index.split(BATCH_SIZE):
        patches = viewer.encode(part).patches
        for model, found in zip(models, answers, strict=True):
            with viewer.device.autocast():
                found.append(model(patches).argmax(1).cpu())
    return iter([torch.cat(found) for found in answers])
