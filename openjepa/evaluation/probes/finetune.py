"""Fine-tune the whole encoder with a linear layer on the mean of its tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from openjepa.core.rng import CounterRNG, epoch_order
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.probes.finetune_recipes import FINETUNE_RECIPES, FinetuneRecipe
from openjepa.evaluation.probes.mixup import mix_batch
from openjepa.interop.adapters import EncoderAdapter

BLOCK_PATTERN = re.compile(
    r"(?:^|\.)(?:blocks|layers?)\.(\d+)\."
)  # where a parameter's name says which block it belongs to

BRANCH_PATTERN = re.compile(r"(?:^|\.)blocks\.(\d+)\.(?:attn|mlp)$")


class FinetuneClassifier(nn.Module):
    """A candidate's network and a linear layer on its pooled features."""

    def __init__(self, candidate: EncoderAdapter, width: int, classes: int):
        super().__init__()
        self.network, self.encode = candidate.network, candidate.encode
        self.linear = nn.Linear(width, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, view: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        return self.linear(self.encode(view).last)


def finetune_probe(
    train: DatasetEncoder,
    test: DatasetEncoder,
    labelled: tuple[Int[Tensor, "R"], Int[Tensor, "R"]],
    asked: Int[Tensor, "Q"],
    classes: int,
    recipe: FinetuneRecipe = FINETUNE_RECIPES["default"],
    seed: int = 0,
) -> Int[Tensor, "Q"]:
    """Classes of test samples. The candidate's weights are afterwards what they were.

    Source: paper, appendices A.2 and D. Nothing is chosen, so no validation split is needed.
    """
    with restore_afterwards(train.encoder.network):
        width = train.encode(labelled[0][:1]).last.shape[1]
        model = FinetuneClassifier(train.encoder, width, classes).to(train.device.device)
        fit_classifier(model, train, *labelled, recipe, seed)
        answers = []
        for part in asked.split(recipe.batch_size):
            with torch.no_grad(), test.device.autocast():
                answers.append(model(test.device.move(test.data.read(part, None).views[0])).argmax(1).cpu())
    return torch.cat(answers)


@contextmanager
def restore_afterwards(network: nn.Module) -> Iterator[None]:
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


def fit_classifier(
    model: FinetuneClassifier,
    viewer: DatasetEncoder,
    index: Int[Tensor, "R"],
    label: Int[Tensor, "R"],
    recipe: FinetuneRecipe,
    seed: int,
) -> None:
    """All epochs, on random crops keyed by (seed, epoch)."""
    generator = torch.Generator().manual_seed(seed)
    groups = layerwise_groups(model, recipe)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr)
    total, step = recipe.epochs * math.ceil(len(index) / recipe.batch_size), 0
    with drop_paths(model.network, recipe.drop_path, generator):
        for epoch in range(recipe.epochs):
            numbers = epoch * len(index) + np.arange(len(index))
            for rows in torch.from_numpy(epoch_order(seed, epoch, len(index))).split(recipe.batch_size):
                read = viewer.data.read(index[rows], CounterRNG.of(seed, step, numbers[rows.numpy()]))
                truth = F.one_hot(label[rows], model.linear.out_features).float()
                view, truth = mix_batch(read.views[0], truth, recipe, generator)
                for group in optimizer.param_groups:
                    group["lr"] = recipe.lr * group["share"] * warmup_cosine(step, total, recipe.warmup)
                with viewer.device.autocast():
                    logits = model(viewer.device.move(view))
                loss = F.cross_entropy(
                    logits.float(), viewer.device.move(truth), label_smoothing=recipe.label_smoothing
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                step += 1


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Linear from 0 to 1, then half a cosine to 0."""
    first = warmup * total
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1.0, total - first)))


def layerwise_groups(model: FinetuneClassifier, recipe: FinetuneRecipe) -> list[dict]:
    """Parameter groups: a block's rate is that of the one above times `layer_decay`; what comes before the blocks, lower still.

    Biases, norms and other vectors are not decayed.
    """
    found = {name: BLOCK_PATTERN.search(name) for name, _ in model.network.named_parameters()}
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
def drop_paths(network: nn.Module, last: float, generator: torch.Generator) -> Iterator[None]:
    """Stochastic depth inside: a residual branch is left out for a sample with a probability that grows with depth."""
    branches = [
        (int(match[1]), part) for name, part in network.named_modules() if (match := BRANCH_PATTERN.search(name))
    ]
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
