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

EPSILON = 1e-5  # of batch normalization


class LinearHead(NamedTuple):
    """One point of the hyperparameter sweep."""

    kind: str  # of features: last, last4
    norm: bool  # batch norm before the linear layer
    multiplier: float  # of the learning rate
    weight_decay: float


@dataclass
class HeadGroup:
    """Heads that share an input, so that one matmul computes the logits of all. G heads, K classes, F features."""

    heads: list[LinearHead]
    weight: Float[Tensor, "G K F"]
    bias: Float[Tensor, "G K"]
    scale: Float[Tensor, "G F"]  # of batch norm; without it, ones that are not trained
    shift: Float[Tensor, "G F"]
    mean: Float[Tensor, "F"]  # running statistics of batch norm
    variance: Float[Tensor, "F"]
    momentum_buffers: dict[str, Tensor] = field(default_factory=dict)

    @property
    def norm(self) -> bool:
        return self.heads[0].norm

    def logits(self, x: Float[Tensor, "B F"], training: bool = False) -> Float[Tensor, "B G K"]:
        """Compute the logits of every head; batch norm's scale and shift are folded into the linear layers."""
        weight, bias = self.weight, self.bias
        if self.norm:
            x = self.normalize(x, training)
            bias = bias + (weight * self.shift[:, None]).sum(-1)
            weight = weight * self.scale[:, None]
        return (x @ weight.flatten(0, 1).T + bias.flatten()).view(len(x), *bias.shape)

    def normalize(self, x: Float[Tensor, "B F"], training: bool) -> Float[Tensor, "B F"]:
        """Apply batch normalization without scale and shift; in training, update the running statistics."""
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = x.mean(0), x.var(0, unbiased=False)
            self.mean.lerp_(mean, 0.1)
            self.variance.lerp_(variance * len(x) / max(1, len(x) - 1), 0.1)
        return (x - mean) * (variance + EPSILON).rsqrt()

    def predict(self, x: Float[Tensor, "B F"]) -> Int[Tensor, "G B"]:
        """Return the most likely class of each sample for each head."""
        return self.logits(x.to(self.weight.device)).argmax(2).T.cpu()

    def finite(self) -> list[bool]:
        """Tell for each head whether its weights are finite."""
        return self.weight.isfinite().all((1, 2)).tolist()

    def trainable(self) -> dict[str, Tensor]:
        """Return the parameters that the optimizer updates."""
        names = ("weight", "bias", "scale", "shift") if self.norm else ("weight", "bias")
        return {name: getattr(self, name) for name in names}


def create_groups(
    heads: list[LinearHead], widths: dict[str, int], classes: int, device: torch.device, seed: int
) -> list[HeadGroup]:
    """Initialize heads as VISSL does: normal weights with standard deviation 0.01, biases 0.

    Every head of a kind starts from the same weights, so a head's result does not depend on the other heads.
    """
    groups: dict[tuple[str, bool], list[LinearHead]] = {}
    for head in heads:
        groups.setdefault((head.kind, head.norm), []).append(head)
    result = []
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
        for parameter in group.trainable().values():
            parameter.requires_grad_()
        result.append(group)
    return result


def schedule_factor(recipe: LinearRecipe, epoch: int, progress: float) -> float:
    """Return the learning rate's factor, which falls from 1."""
    if recipe.schedule == "cosine":
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
    return 0.1 ** sum(epoch >= milestone for milestone in recipe.milestones)


@torch.no_grad()
def update_group(
    group: HeadGroup, x: Float[Tensor, "B F"], label: Int[Tensor, "B"], base_lr: float, recipe: LinearRecipe
) -> None:
    """Update every head of a group by one optimizer step, without weight decay of batch norm's parameters (VISSL)."""
    parameters = group.trainable()
    with torch.enable_grad():
        logits = group.logits(x, training=True)
        truth = label[:, None].expand(-1, len(group.heads))
        loss = F.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="sum") / len(x)
        gradients = torch.autograd.grad(loss, list(parameters.values()))
    for (name, tensor), gradient in zip(parameters.items(), gradients, strict=True):
        column = (-1,) + (1,) * (tensor.ndim - 1)
        lr = base_lr * tensor.new_tensor([head.multiplier for head in group.heads]).view(column)
        decay = tensor.new_tensor([head.weight_decay for head in group.heads]).view(column)
        if name in ("weight", "bias"):
            gradient = gradient + decay * tensor
        if recipe.optimizer == "lars" and name == "weight":
            gradient = gradient * trust_ratio(tensor, gradient)
        buffer = group.momentum_buffers.get(name)
        buffer = gradient if buffer is None else recipe.momentum * buffer + gradient
        group.momentum_buffers[name] = buffer
        tensor -= lr * (gradient + recipe.momentum * buffer if recipe.nesterov else buffer)


def trust_ratio(
    weight: Float[Tensor, "G K F"], update: Float[Tensor, "G K F"], eta: float = 1e-3
) -> Float[Tensor, "G 1 1"]:
    """Compute the trust ratio of LARS for each head: η‖w‖/‖update‖, 1 where either norm is 0.

    Source: You et al., 2017. Biases and batch norm's parameters are not scaled by it.
    """
    weight_norm, update_norm = (each.flatten(1).norm(dim=1).view(-1, 1, 1) for each in (weight, update))
    both = (weight_norm > 0) & (update_norm > 0)
    return torch.where(both, eta * weight_norm / update_norm.clamp(min=1e-12), 1.0)
