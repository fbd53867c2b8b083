"""Fine-tuning: the whole encoder and a linear layer on the mean of its tokens, learning from labels.

B batch  C channels  H height  W width  R, Q samples  K classes
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from openjepa.core.rng import CounterRNG, epoch_order
from openjepa.evaluate.embed import Viewer
from openjepa.interop.adapters import EncoderAdapter

BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers?)\.(\d+)\.")  # where a parameter's name says which block it belongs to

BRANCH = re.compile(r"(?:^|\.)blocks\.(\d+)\.(?:attn|mlp)$")


@dataclass(frozen=True)
class Recipe:
    """AdamW with a cosine; no average of the weights, no RandAugment (the paper has MAE's)."""

    epochs: int = 50
    batch_size: int = 128
    lr: float = 1e-3  # of the last layer
    layer_decay: float = 0.75  # each block's rate is that of the one above times this
    weight_decay: float = 0.05
    warmup: float = 0.1  # share of the run
    mixup: float = 0.8  # parameters of the beta distributions; 0: without
    cutmix: float = 1.0
    drop_path: float = 0.1  # of the last block, linear from 0 at the first; our encoders only
    label_smoothing: float = 0.1


RecipeName = Literal["default", "lowshot", "in1k-448"]

RECIPES: dict[RecipeName, Recipe] = {  # by name; sources in docs/evaluation.md
    "default": Recipe(),
    "lowshot": Recipe(batch_size=512, lr=3e-5, mixup=0.0, cutmix=0.0, drop_path=0.0),
    "in1k-448": Recipe(batch_size=528, lr=1e-4 * 528 / 256, weight_decay=0.04, drop_path=0.25),
}


class Classifier(nn.Module):
    """A candidate's network and a linear layer on its pooled features."""

    def __init__(self, candidate: EncoderAdapter, width: int, classes: int):
        super().__init__()
        self.network, self.see = candidate.network, candidate.see
        self.linear = nn.Linear(width, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, view: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        return self.linear(self.see(view).last)


def finetune(
    train: Viewer,
    test: Viewer,
    labelled: tuple[Int[Tensor, "R"], Int[Tensor, "R"]],
    asked: Int[Tensor, "Q"],
    classes: int,
    recipe: Recipe = RECIPES["default"],
    seed: int = 0,
) -> Int[Tensor, "Q"]:
    """Classes of test samples. The candidate's weights are afterwards what they were.

    Source: paper, appendices A.2 and D. Nothing is chosen, so no validation split is needed.
    """
    with borrowed(train.candidate.network):
        width = train.see(labelled[0][:1]).last.shape[1]
        model = Classifier(train.candidate, width, classes).to(train.place.device)
        fit(model, train, *labelled, recipe, seed)
        answers = []
        for part in asked.split(recipe.batch_size):
            with torch.no_grad(), test.place.autocast():
                answers.append(model(test.place.move(test.data.read(part, None).views[0])).argmax(1).cpu())
    return torch.cat(answers)


@contextmanager
def borrowed(network: nn.Module) -> Iterator[None]:
    """The network may be trained inside, and is as it was after."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    wanted = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    network.requires_grad_(True)
    try:
        yield
    finally:
        network.load_state_dict(state)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(wanted[name])
            parameter.grad = None


def fit(
    model: Classifier, viewer: Viewer, index: Int[Tensor, "R"], label: Int[Tensor, "R"], recipe: Recipe, seed: int
) -> None:
    """All epochs, on random crops keyed by (seed, epoch)."""
    generator = torch.Generator().manual_seed(seed)
    groups = layerwise(model, recipe)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr)
    total, step = recipe.epochs * math.ceil(len(index) / recipe.batch_size), 0
    with dropped_paths(model.network, recipe.drop_path, generator):
        for epoch in range(recipe.epochs):
            numbers = epoch * len(index) + np.arange(len(index))
            for rows in torch.from_numpy(epoch_order(seed, epoch, len(index))).split(recipe.batch_size):
                read = viewer.data.read(index[rows], CounterRNG.of(seed, step, numbers[rows.numpy()]))
                truth = F.one_hot(label[rows], model.linear.out_features).float()
                view, truth = mixed(read.views[0], truth, recipe, generator)
                for group in optimizer.param_groups:
                    group["lr"] = recipe.lr * group["share"] * pace(step, total, recipe.warmup)
                with viewer.place.autocast():
                    logits = model(viewer.place.move(view))
                loss = F.cross_entropy(logits.float(), viewer.place.move(truth), label_smoothing=recipe.label_smoothing)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                step += 1


def pace(step: int, total: int, warmup: float) -> float:
    """Linear from 0 to 1, then half a cosine to 0."""
    first = warmup * total
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1.0, total - first)))


def layerwise(model: Classifier, recipe: Recipe) -> list[dict]:
    """Parameter groups: a block's rate is that of the one above times `layer_decay`; what comes before the blocks, lower still.

    Biases, norms and other vectors are not decayed.
    """
    found = {name: BLOCK.search(name) for name, _ in model.network.named_parameters()}
    depth = 1 + max((int(match[1]) for match in found.values() if match), default=-1)
    first = min((place for place, match in enumerate(found.values()) if match), default=0)
    groups = []
    for place, (name, parameter) in enumerate(model.network.named_parameters()):
        match = found[name]
        level = int(match[1]) + 1 if match else (0 if place < first else depth + 1)
        groups.append((parameter, recipe.layer_decay ** (depth + 1 - level)))
    groups += [(parameter, 1.0) for parameter in model.linear.parameters()]
    return [
        {"params": [parameter], "share": share, "weight_decay": recipe.weight_decay if parameter.ndim > 1 else 0.0}
        for parameter, share in groups
    ]


@contextmanager
def dropped_paths(network: nn.Module, last: float, generator: torch.Generator) -> Iterator[None]:
    """Stochastic depth inside: a residual branch is left out for a sample with a probability that grows with depth."""
    branches = [(int(match[1]), part) for name, part in network.named_modules() if (match := BRANCH.search(name))]
    depth = max((number for number, _ in branches), default=0)

    def hook(rate: float):
        def scaled(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
            kept = torch.rand(len(output), 1, 1, generator=generator) >= rate
            return output * (kept / (1 - rate)).to(output)

        return scaled

    handles = [part.register_forward_hook(hook(last * number / max(1, depth))) for number, part in branches if last]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def mixed(
    view: UInt8[Tensor, "B C H W"], truth: Float[Tensor, "B K"], recipe: Recipe, generator: torch.Generator
) -> tuple[UInt8[Tensor, "B C H W"], Float[Tensor, "B K"]]:
    """Mixup or CutMix, either with equal chance, of each sample with another; labels in the same shares."""
    choices = [kind for kind, strength in (("mixup", recipe.mixup), ("cutmix", recipe.cutmix)) if strength]
    if not choices:
        return view, truth
    kind = choices[int(torch.randint(len(choices), (1,), generator=generator))]
    strength = recipe.mixup if kind == "mixup" else recipe.cutmix
    share = beta(strength, generator)
    other = view.flip(0)
    if kind == "mixup":
        view = (share * view.float() + (1 - share) * other.float()).round().to(torch.uint8)
    else:
        height, width = view.shape[2:]
        h, w = round(height * math.sqrt(1 - share)), round(width * math.sqrt(1 - share))
        top, left = (int(torch.randint(room + 1, (1,), generator=generator)) for room in (height - h, width - w))
        view = view.clone()
        view[:, :, top : top + h, left : left + w] = other[:, :, top : top + h, left : left + w]
        share = 1 - h * w / (height * width)
    return view, share * truth + (1 - share) * truth.flip(0)


def beta(strength: float, generator: torch.Generator) -> float:
    """A draw of Beta(strength, strength), of two gamma draws."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    return float(np.random.default_rng(seed).beta(strength, strength))
