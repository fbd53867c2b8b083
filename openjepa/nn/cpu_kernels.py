"""Matmuls and attention that train faster on CPUs than torch's own; equal up to rounding."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Without AVX-512, oneDNN has no bf16 matmuls on the CPU, and torch's own bf16 matmuls are far slower than fp32.
HAS_ONEDNN_BF16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Linear(nn.Linear):
    """nn.Linear with a fused bias for bf16 on CPUs, where torch first copies the bias to every row."""

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
        if self.bias is None or uses_torch_kernels(x) or not (HAS_ONEDNN_BF16 and autocasts_to_bf16()):
            return super().forward(x)
        return MkldnnLinear.apply(x, self.weight, self.bias)


def uses_torch_kernels(x: Tensor) -> bool:
    """Return whether to use torch's own kernels: on GPUs, and when compiling or exporting."""
    return x.device.type != "cpu" or torch.compiler.is_compiling()


def autocasts_to_bf16() -> bool:
    """Return whether CPU autocast to bf16 is active."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def self_attention(qkv: Float[Tensor, "3 B H N K"], mask: Bool[Tensor, "#B 1 #N N"] | None) -> Float[Tensor, "B H N K"]:
    """Apply `attention` to queries, keys and values that are stacked in one tensor."""
    q, k, v = qkv
    return attention(q, k, v, mask) if uses_torch_kernels(qkv) else FusedSelfAttention.apply(qkv, mask)


def attention(
    q: Float[Tensor, "B H Q K"], k: Float[Tensor, "B H N K"], v: Float[Tensor, "B H N K"], mask: Tensor | None
) -> Float[Tensor, "B H Q K"]:
    """Compute softmax(q kᵀ / √K) v.

    CPUs use plain matmuls: at 16–250 tokens the fused call trains slower in bf16.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        weights = weights.masked_fill(~mask, float("-inf"))
    return weights.softmax(-1) @ v


class MkldnnLinear(torch.autograd.Function):
    """x wᵀ + b in bf16 by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, weight, bias = (tensor.bfloat16() for tensor in (x, weight, bias))
        ctx.save_for_backward(x, weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad_rows, x_rows = (tensor.reshape(-1, tensor.shape[-1]) for tensor in (grad, x))
        tall = len(weight) >= weight.shape[1]  # choose the faster of two equal matmuls
        grad_x = grad @ weight
        grad_weight = grad_rows.T @ x_rows if tall else (x_rows.T @ grad_rows).T
        return grad_x, grad_weight, grad_rows.sum(0)


class FusedSelfAttention(torch.autograd.Function):
    """softmax(q kᵀ / √K) v, with one gradient tensor for q, k, v and the scale fused into the matmuls."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, mask: Tensor | None) -> Tensor:
        heads = qkv.shape[1:3]  # B H
        qkv = qkv.contiguous().flatten(1, 2)  # 3 B·H N K
        q, k, v = qkv
        weights = torch.baddbmm(q.new_empty(1), q, k.mT, beta=0, alpha=q.shape[-1] ** -0.5)
        if mask is not None:
            weights.unflatten(0, heads).masked_fill_(~mask, float("-inf"))
        weights = weights.softmax(-1)
        ctx.save_for_backward(qkv, weights)
        return (weights @ v).unflatten(0, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        qkv, weights = ctx.saved_tensors
        q, k, v = qkv
        grad_qkv = torch.empty_like(qkv)
        heads, grad, scale = grad.shape[:2], grad.flatten(0, 1), q.shape[-1] ** -0.5
        torch.bmm(weights.mT, grad, out=grad_qkv[2])
        grad = torch._softmax_backward_data(grad @ v.mT, weights, -1, weights.dtype)
        torch.baddbmm(q, grad, k, beta=0, alpha=scale, out=grad_qkv[0])
        torch.baddbmm(k, grad.mT, q, beta=0, alpha=scale, out=grad_qkv[1])
        return grad_qkv.unflatten(1, heads), None
