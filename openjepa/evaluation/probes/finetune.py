"""Fine-tune the whole encoder with a linear layer on its pooled features."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Real
from torch import Tensor, nn

from openjepa.core.rng import CounterRNG, epoch_order
from openjepa.core.types import Score
from openjepa.evaluation.evaluator import (
    Prediction,
    ProbeInput,
    SplitFeatures,
    classification_score,
    metric_name,
)
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.probes.finetune_recipes import FINETUNE_RECIPES, FinetuneRecipe, FinetuneRecipeName
from openjepa.evaluation.probes.lowshot import Answer, LabelSubsets, lowshot_scores
from openjepa.evaluation.probes.masked_keys import mask_keys
from openjepa.evaluation.probes.mixup import mix_batch
from openjepa.interop.pretrained import PretrainedEncoder

BLOCK_PATTERN = re.compile(r"(?:^|\.)(?:blocks|layers?)\.(\d+)\.")  # the block number in a parameter's name

BRANCH_PATTERN = re.compile(r"(?:^|\.)blocks\.(\d+)\.(?:attn|mlp)$")  # the name of a residual branch


class FinetuneClassifier(nn.Module):
    """An encoder and a linear layer, initialized to 0, on its pooled features."""

    def __init__(self, encoder: PretrainedEncoder, width: int, classes: int):
        super().__init__()
        self.network, self.encode = encoder.network, encoder.encode
        self.linear = nn.Linear(width, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, view: Real[Tensor, "B *view"]) -> Float[Tensor, "B K"]:
        return self.linear(self.encode(view).last)


def finetune_probe(
    train: DatasetEncoder,
    test: DatasetEncoder,
    labeled: tuple[Int[Tensor, "R"], Int[Tensor, "R"]],
    test_index: Int[Tensor, "Q"],
    classes: int,
    recipe: FinetuneRecipe = FINETUNE_RECIPES["default"],
    seed: int = 0,
) -> Int[Tensor, "Q"]:
    """Fine-tune on the labeled samples and predict the test samples; restore the encoder's weights afterwards.

    `labeled` holds indices of training samples and their labels, `test_index` indices of test samples. Nothing is
    selected, so no validation split is needed. Source: paper, appendices A.2 and D.
    """
    with restore_afterwards(train.encoder.network):
        width = train.encode(labeled[0][:1]).last.shape[1]
        model = FinetuneClassifier(train.encoder, width, classes).to(train.device.device)
        fit_classifier(model, train, *labeled, recipe, seed)
        answers = []
        for rows in test_index.split(recipe.batch_size):
            with torch.no_grad(), test.device.autocast():
                answers.append(model(test.device.move(test.data.read(rows, None).views[0])).argmax(1).cpu())
    return torch.cat(answers)


@contextmanager
def restore_afterwards(network: nn.Module) -> Iterator[None]:
    """Make all parameters trainable inside the block; restore weights and `requires_grad` on exit."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    trainable = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    network.requires_grad_(True)
    try:
        yield
    finally:
        network.load_state_dict(state)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(trainable[name])
            parameter.grad = None


def fit_classifier(
    model: FinetuneClassifier,
    data: DatasetEncoder,
    index: Int[Tensor, "R"],
    label: Int[Tensor, "R"],
    recipe: FinetuneRecipe,
    seed: int,
) -> None:
    """Train for all epochs of the recipe, on random crops keyed by (seed, epoch)."""
    generator = torch.Generator().manual_seed(seed)
    groups = layerwise_groups(model, recipe)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr)
    total, step = recipe.epochs * math.ceil(len(index) / recipe.batch_size), 0
    network = model.network
    with drop_paths(network, recipe.drop_path, generator), mask_keys(network, recipe.mask_keys, generator):
        for epoch in range(recipe.epochs):
            keys = epoch * len(index) + np.arange(len(index))
            for rows in torch.from_numpy(epoch_order(seed, epoch, len(index))).split(recipe.batch_size):
                samples = data.data.read(index[rows], CounterRNG.of(seed, step, keys[rows.numpy()]))
                truth = F.one_hot(label[rows], model.linear.out_features).float()
                view, truth = mix_batch(samples.views[0], truth, recipe, generator)
                for group in optimizer.param_groups:
                    group["lr"] = recipe.lr * group["share"] * warmup_cosine(step, total, recipe.warmup)
                with data.device.autocast():
                    logits = model(data.device.move(view))
                loss = F.cross_entropy(logits.float(), data.device.move(truth), label_smoothing=recipe.label_smoothing)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                step += 1


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Return the learning rate's factor: linear warm-up from 0 to 1, then half a cosine to 0."""
    first = warmup * total
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1.0, total - first)))


def layerwise_groups(model: FinetuneClassifier, recipe: FinetuneRecipe) -> list[dict]:
    """Build one parameter group per parameter, with layer-wise learning rate decay.

    A block's learning rate is that of the block above times `layer_decay`; the stem's is one level below the first
    block's. Biases, norms and other vectors have no weight decay.
    """
    blocks = {name: BLOCK_PATTERN.search(name) for name, _ in model.network.named_parameters()}
    depth = 1 + max((int(match[1]) for match in blocks.values() if match), default=-1)
    first = min((position for position, match in enumerate(blocks.values()) if match), default=0)
    groups = []
    for position, (name, parameter) in enumerate(model.network.named_parameters()):
        match = blocks[name]
        level = int(match[1]) + 1 if match else (0 if position < first else depth + 1)
        groups.append((parameter, recipe.layer_decay ** (depth + 1 - level)))
    groups += [(parameter, 1.0) for parameter in model.linear.parameters()]
    return [
        {"params": [parameter], "share": share, "weight_decay": recipe.weight_decay if parameter.ndim > 1 else 0.0}
        for parameter, share in groups
    ]


@contextmanager
def drop_paths(network: nn.Module, last: float, generator: torch.Generator) -> Iterator[None]:
    """Apply stochastic depth inside the block: drop residual branches of samples at random.

    The probability grows linearly from 0 in the first block to `last` in the last one.
    """
    matches = [(BRANCH_PATTERN.search(name), module) for name, module in network.named_modules()]
    branches = [(int(match[1]), module) for match, module in matches if match]
    depth = max((number for number, _ in branches), default=0)

    def hook(rate: float):
        def drop_and_rescale(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
            survives = torch.rand(len(output), 1, 1, generator=generator) >= rate
            return output * (survives / (1 - rate)).to(output)

        return drop_and_rescale

    handles = [part.register_forward_hook(hook(last * number / max(1, depth))) for number, part in branches if last]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Finetune:
    """Measure the fine-tuned encoder; baselines without weights are skipped.

    For the encoder before training this measures a supervised network of the same size, trained from scratch.
    """

    finetune: FinetuneRecipeName = "default"
    shots: tuple[float, ...] = (1.0, 10.0)  # of the recipe lowshot
    repeats: int = 5
    seed: int = 0

    def run(self, subject: ProbeInput) -> Iterator[Score]:
        """Yield the accuracy; of the recipe lowshot, one for each number of shots."""
        if subject.features.views is None:
            return
        recipe, chosen = FINETUNE_RECIPES[self.finetune], {"recipe": self.finetune}

        def answer_of(part: SplitFeatures) -> Answer:
            views, index, y, test = part.views, part.train.labeled, part.train.y, part.test.labeled
            assert views
            return lambda rows: finetune_probe(*views, (index[rows], y[rows]), test, subject.classes, recipe, self.seed)

        def predict(part: SplitFeatures) -> Prediction:
            return Prediction(answer_of(part)(torch.arange(len(part.train.y))), chosen)

        if self.finetune == "lowshot":
            subsets = LabelSubsets(self.shots, self.repeats, self.seed)
            yield from lowshot_scores(subject, "finetune", answer_of, subsets, chosen)
        else:
            yield from classification_score(subject, metric_name("finetune", self.finetune), predict)
