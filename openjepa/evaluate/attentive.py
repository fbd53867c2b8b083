"""The attentive probe: a learnt query pools the patch tokens of a frozen encoder, then a linear layer.

R, Q samples  B batch  N tokens  D width  K classes
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from openjepa.evaluate.embed import Viewer
from openjepa.evaluate.linear import VALIDATION
from openjepa.nn.init import initialize
from openjepa.nn.pooling import AttentivePool

EPOCHS, BATCH = 20, 256


class Head(NamedTuple):
    """One point of the sweep."""

    lr: float
    weight_decay: float


SWEEP = tuple(Head(lr, decay) for lr in (1e-3, 3e-4, 1e-4) for decay in (0.01, 0.4))  # V-JEPA 2's range, thinned


class Outcome(NamedTuple):
    """The head that was chosen, and what it says of the test data."""

    head: Head
    validation: float  # accuracy that chose it
    predicted: Int[Tensor, "Q"]


class Classifier(nn.Module):
    """Attentive pooling and a linear layer."""

    def __init__(self, dim: int, num_heads: int, classes: int, seed: int):
        super().__init__()
        self.pool = AttentivePool(dim, num_heads)
        self.linear = nn.Linear(dim, classes)
        initialize(self, torch.Generator().manual_seed(seed))

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B K"]:
        return self.linear(self.pool(tokens))


def probe(
    train: Viewer,
    test: Viewer,
    labelled: tuple[Int[Tensor, "R"], Int[Tensor, "R"]],
    asked: Int[Tensor, "Q"],
    classes: int,
    sweep: tuple[Head, ...] = SWEEP,
    epochs: int | None = None,
    seed: int = 0,
    augment: bool = False,
) -> Outcome:
    """The best of the sweep by a tenth of the training data, trained again on all of it, on the test data.

    `labelled` names training samples and their labels, `asked` test samples. All heads of the sweep see the same tokens.
    """
    index, label = labelled
    shuffled = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    held, kept = shuffled.tensor_split([max(1, int(len(label) * VALIDATION))])

    def run(heads: tuple[Head, ...], rows: Tensor) -> list[Classifier]:
        return fit(train, index[rows], label[rows], classes, heads, epochs or EPOCHS, seed, augment)

    answers = predictions(train, index[held], run(sweep, kept))
    scores = [float((answer == label[held]).float().mean()) for answer in answers]
    best = scores.index(max(scores))
    (predicted,) = predictions(test, asked, run((sweep[best],), shuffled))
    return Outcome(sweep[best], scores[best], predicted)


def fit(
    viewer: Viewer,
    index: Int[Tensor, "R"],
    label: Int[Tensor, "R"],
    classes: int,
    heads: tuple[Head, ...],
    epochs: int,
    seed: int,
    augment: bool,
) -> list[Classifier]:
    """A classifier for each head by AdamW, learning rate falling as a cosine to 0."""
    dim, place = viewer.see(index[:1]).patches.shape[-1], viewer.place
    count = max(1, dim // 64) if dim % 64 == 0 else 1
    models = [Classifier(dim, count, classes, seed).to(place.device) for _ in heads]
    solvers = [
        torch.optim.AdamW(model.parameters(), lr=head.lr, weight_decay=head.weight_decay)
        for model, head in zip(models, heads, strict=True)
    ]
    total, step = epochs * math.ceil(len(index) / BATCH), 0
    seen_in = viewer.epochs(index, BATCH, seed, augment)
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
def predictions(viewer: Viewer, index: Int[Tensor, "Q"], models: list[Classifier]) -> Iterator[Int[Tensor, "Q"]]:
    """Each model's classes for some samples; what is seen is shared."""
    answers: list[list[Tensor]] = [[] for _ in models]
    for part in index.split(BATCH):
        patches = viewer.see(part).patches
        for model, found in zip(models, answers, strict=True):
            with viewer.place.autocast():
                found.append(model(patches).argmax(1).cpu())
    return iter([torch.cat(found) for found in answers])
