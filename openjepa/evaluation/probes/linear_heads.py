"""Groups of linear heads that share an input, and their optimizer steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.evaluation.probes.linear_recipes import LinearRecipe

EPSILON = 1e-5  # of batch norm


class LinearHead(NamedTuple):
    """One point of the sweep."""

    kind: str  # of features: last, last4
    norm: bool
    multiplier: float
    weight_decay: float


@dataclass
class HeadGroup:
    """The heads that share an input: one matrix product serves them all."""

    heads: list[LinearHead]
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


def create_groups(
    heads: list[LinearHead], widths: dict[str, int], classes: int, device: torch.device, seed: int
) -> list[HeadGroup]:
    """Fresh heads, weights normal of deviation 0.01 as VISSL's, biases 0; a head's weights do not depend on the others."""
    groups: dict[tuple[str, bool], list[LinearHead]] = {}
    for head in heads:
        groups.setdefault((head.kind, head.norm), []).append(head)
    made = []
    for (kind, _), members in groups.items():
        width, count = widths[kind], len(members)
        first = torch.randn(classes, width, generator=torch.Generator().manual_seed(seed)) * 0.01
        group = HeadGroup(
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


def schedule_factor(recipe: LinearRecipe, epoch: int, progress: float) -> float:
    """The schedule's factor, from 1 down."""
    if recipe.schedule == "cosine":
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
    return 0.1 ** sum(epoch >= milestone for milestone in recipe.milestones)


@torch.no_grad()
def update_group(
    group: HeadGroup, x: Float[Tensor, "B F"], label: Int[Tensor, "B"], rate: float, recipe: LinearRecipe
) -> None:
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
            gradient = gradient * trust_ratio(tensor, gradient)
        speed = group.speed.get(name)
        speed = gradient if speed is None else recipe.momentum * speed + gradient
        group.speed[name] = speed
        tensor -= lr * (gradient + recipe.momentum * speed if recipe.nesterov else speed)


def trust_ratio(
    weight: Float[Tensor, "G K F"], update: Float[Tensor, "G K F"], eta: float = 1e-3
) -> Float[Tensor, "G 1 1"]:
    """LARS (You et al., 2017): η‖w‖/‖update‖ for each head, 1 where either is 0. Vectors are left out."""
    size, length = (each.flatten(1).norm(dim=1).view(-1, 1, 1) for each in (weight, update))
    return torch.where((size > 0) & (length > 0), eta * size / length.clamp(min=1e-12), 1.0)
