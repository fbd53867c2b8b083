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

# of x, x³ and x⁵ in each Newton–Schulz step; together they bring singular values from 0.02 … 1 to 0.89 … 1.11
NEWTON_SCHULZ_COEFFICIENTS = ((7.84, -22.4225, 16.4615), (3.6144, -2.5848, 0.5161), (1.8815, -0.9883, 0.1886))

UPDATE_RMS = 0.2  # root mean square of AdamW's updates; Muon's get the same, so that both use the same learning rate


class Muon(torch.optim.AdamW):
    """AdamW, except for groups with `pieces`: the number of stacked matrices in each of their parameters.

    In these groups the Nesterov momentum of the gradient is replaced by the nearest matrix with orthonormal rows or
    columns, times 0.2 √(longer side). Matmuls run in the surrounding autocast precision.
    Source: Jordan et al., 2024; Liu et al., arXiv 2502.16982, equation 4.
    Differs: three Newton–Schulz steps with their own coefficients in place of five.

    Why not torch.optim.Muon: it orthogonalizes a stacked qkv matrix as one, where queries, keys and values need an
    update each; it updates weights with non-finite gradients, where `found_inf` here skips the update without a device
    sync; and it loops over matrices, where those of one shape here share batched matmuls. For the same update under
    bf16 autocast its step took 1.53 times as long (median of three runs, 1.34 to 1.58; torch 2.13, one thread of an
    AMD EPYC with AVX-512 bf16, ViT of width 192 and depth 6: `python benchmarks/muon.py`). In fp32 it took 0.74 times
    as long (0.68 to 0.82), because it casts every update to bf16; ours stays in fp32.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update the groups without `pieces` by AdamW, the others by Muon."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if "pieces" not in group]
        super().step(closure)
        self.param_groups = groups
        for group in groups:
            if "pieces" in group:
                self.step_matrices(group)

    def step_matrices(self, group: dict[str, Any]) -> None:
        """Update the matrices of one group."""
        trained = [(p, count) for p, count in zip(group["params"], group["pieces"], strict=True) if p.grad is not None]
        weights, gradients = [p for p, _ in trained], [p.grad for p, _ in trained]
        for p in weights:
            self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
        momenta = [self.state[p]["momentum_buffer"] for p in weights]
        scale = 1.0 - getattr(self, "found_inf", group["params"][0].new_zeros(()))  # 0 to skip the update, else 1
        # in a skipped update the momentum replaces the gradient, so that the momentum stays as it is
        gradients = [torch.where(scale > 0, g, momentum) for g, momentum in zip(gradients, momenta, strict=True)]
        torch._foreach_lerp_(momenta, gradients, 1.0 - MOMENTUM)
        nesterov = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        torch._foreach_mul_(weights, 1.0 - group["lr"] * group["weight_decay"] * scale)

        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for (p, count), update in zip(trained, nesterov, strict=True):
            for matrix, direction in zip(p.chunk(count), update.chunk(count), strict=True):
                by_shape[matrix.shape].append((matrix, direction))
        for shape, pairs in by_shape.items():
            updates = orthogonalize(torch.stack([direction for _, direction in pairs])) * scale
            for (matrix, _), update in zip(pairs, updates, strict=True):
                matrix.sub_(update, alpha=UPDATE_RMS * math.sqrt(max(shape)) * group["lr"])


def orthogonalize(x: Float[Tensor, "M R C"]) -> Float[Tensor, "M R C"]:
    """Return matrices with the same singular vectors and singular values close to 1.

    Singular values below 0.02 of the norm of their matrix come less close.
    """
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    tall = x.shape[1] > x.shape[2]
    for a, b, c in NEWTON_SCHULZ_COEFFICIENTS:
        gram = torch.bmm(x.mT, x) if tall else torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, *((x, polynomial) if tall else (polynomial, x)), beta=a)
    return x


def block_matrices(method: nn.Module) -> dict[Tensor, int]:
    """Return the trainable matrices of blocks, with the number of matrices in each (qkv: 3)."""
    stacked = {module.qkv.weight for module in method.modules() if isinstance(module, Attention)}
    blocks = [module for module in method.modules() if isinstance(module, Block)]
    matrices = [p for block in blocks for p in block.parameters() if p.ndim == 2 and p.requires_grad]
    return {p: 3 if p in stacked else 1 for p in matrices}
