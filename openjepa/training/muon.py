"""Muon: orthogonalized momentum updates for the 2-D weights of transformer blocks.   M matrices"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.nn.transformer import Attention, Block

MOMENTUM = 0.95

# of Newton–Schulz, coefficients of x, x³ and x⁵, by which singular values from 0.02 to 1 come to 0.89 to 1.11
NEWTON_SCHULZ_COEFFICIENTS = ((7.84, -22.4225, 16.4615), (3.6144, -2.5848, 0.5161), (1.8815, -0.9883, 0.1886))

UPDATE_RMS = 0.2  # root mean square of AdamW's updates, which Muon's are given, so that learning rates are the same


class Muon(torch.optim.AdamW):
    """AdamW, but for groups with `pieces`: of how many stacked matrices each of their parameters consists.

    There the gradient's average, with Nesterov's look ahead, is replaced by the nearest matrix with orthogonal rows or
    columns, times 0.2 √(longer side) (Jordan et al., 2024; Liu et al., arXiv 2502.16982, equation 4). Products are in the
    precision around the call. Differs from torch.optim.Muon: matrices of one shape go together; queries, keys and values,
    stored as one matrix, are three; three steps of Newton–Schulz in place of five, of their own coefficients; and nothing
    moves where `found_inf` says so, without waiting for the device.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        groups = self.param_groups
        self.param_groups = [group for group in groups if "pieces" not in group]
        super().step(closure)
        self.param_groups = groups
        for group in groups:
            if "pieces" in group:
                self.orthogonalised(group)

    def orthogonalised(self, group: dict[str, Any]) -> None:
        """One step of a group of matrices."""
        asked = [(p, count) for p, count in zip(group["params"], group["pieces"], strict=True) if p.grad is not None]
        weights, gradients = [p for p, _ in asked], [p.grad for p, _ in asked]
        for p in weights:
            self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
        averages = [self.state[p]["momentum_buffer"] for p in weights]
        taken = 1.0 - getattr(self, "found_inf", group["params"][0].new_zeros(()))
        # where no step is taken, gradients are such that averages stay what they are
        gradients = [torch.where(taken > 0, g, average) for g, average in zip(gradients, averages, strict=True)]
        torch._foreach_lerp_(averages, gradients, 1.0 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, averages, MOMENTUM)
        torch._foreach_mul_(weights, 1.0 - group["lr"] * group["weight_decay"] * taken)

        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for (p, count), update in zip(asked, ahead, strict=True):
            for part, towards in zip(p.chunk(count), update.chunk(count), strict=True):
                alike[part.shape].append((part, towards))
        for shape, pairs in alike.items():
            updates = orthogonalize(torch.stack([towards for _, towards in pairs])) * taken
            for (part, _), update in zip(pairs, updates, strict=True):
                part.sub_(update, alpha=UPDATE_RMS * math.sqrt(max(shape)) * group["lr"])


def orthogonalize(x: Float[Tensor, "M R C"]) -> Float[Tensor, "M R C"]:
    """Matrices with the singular vectors of `x`, and singular values close to 1 where they were not small beside its norm."""
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    tall = x.shape[1] > x.shape[2]
    for a, b, c in NEWTON_SCHULZ_COEFFICIENTS:
        gram = torch.bmm(x.mT, x) if tall else torch.bmm(x, x.mT)
        mixed = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, *((x, mixed) if tall else (mixed, x)), beta=a)
    return x


def block_matrices(method: nn.Module) -> dict[Tensor, int]:
    """The matrices of transformer blocks that are trained, and of how many stacked ones each consists."""
    stacked = {module.qkv.weight for module in method.modules() if isinstance(module, Attention)}
    blocks = [module for module in method.modules() if isinstance(module, Block)]
    found = [p for block in blocks for p in block.parameters() if p.ndim == 2 and p.requires_grad]
    return {p: 3 if p in stacked else 1 for p in found}
