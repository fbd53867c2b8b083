"""Build the optimizer, clip gradients, and skip the update when the gradient is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from openjepa.core.distributed import full_tensor, local_shards
from openjepa.core.errors import UserError
from openjepa.core.types import ParamGroup
from openjepa.methods.base import BaseMethod
from openjepa.training.muon import Muon, block_matrices
from openjepa.training.schedules import ema_momentum, learning_rate, weight_decay

BOUNDED_BY_1 = ("lr", "start_lr", "final_lr", "ema_momentum", "final_ema_momentum", "ema_rampup", "beta1", "beta2")


@dataclass(frozen=True)
class Optim:
    """Settings of the optimizer and of its schedules."""

    lr: float = 1e-3  # peak learning rate
    start_lr: float = 2e-4  # learning rate at the start of the warm-up
    final_lr: float = 1e-6  # learning rate at the end of the cosine decay
    warmup: float = 40 / 300  # fraction of the run in which the learning rate rises linearly from start_lr to lr
    # length of the schedules after the warm-up, of the weight decay and of the EMA, as a multiple of the run: at 1.25
    # (V-JEPA) the run stops before they end; 1: they end with the run
    stretch: float = 1.0
    constant_fraction: float = 0.0  # fraction of the run at the peak, after the warm-up; 0: none (official code)
    weight_decay: float = 0.04  # weight decay at the start; of matrices, not of biases and norms
    final_weight_decay: float = 0.4  # weight decay at the end
    # schedule of the weight decay from start to end; cosine: official code, linear: the paper's text
    weight_decay_shape: Literal["cosine", "linear"] = "cosine"
    ema_momentum: float = 0.996  # momentum of the EMA target encoder at the start; rises linearly to the final one
    final_ema_momentum: float = 1.0  # momentum of the EMA target encoder at the end
    # keep the target encoder young early on: momentum is at most 1 - 1 / (ema_rampup · step), so with 0.1 it can reach
    # 0.99 at step 1000; 0: off
    ema_rampup: float = 0.0
    beta1: float = 0.9  # AdamW's decay rate of the mean gradient
    beta2: float = 0.999  # AdamW's decay rate of the mean squared gradient
    clip: float = 0.0  # clip the norm of the gradient to this value; 0: no clipping, as in the official code
    # optimizer of the weight matrices in the transformer layers of encoder and predictor; all other weights use AdamW.
    # Both use the same learning rate and weight decay
    optimizer: Literal["adamw", "muon"] = "adamw"

    def __post_init__(self):
        if min(self.warmup, self.constant_fraction) < 0 or self.warmup + self.constant_fraction >= 1:
            raise UserError(
                "--optim.warmup + --optim.constant-fraction must be < 1, and both >= 0, "
                f"got {self.warmup:g} and {self.constant_fraction:g}: "
                "try --optim.warmup 0.1 --optim.constant-fraction 0.6"
            )
        if not 1 <= self.stretch <= 100:
            raise UserError(f"--optim.stretch must be between 1 and 100, got {self.stretch:g}: try --optim.stretch 1")
        for name in (*BOUNDED_BY_1, "weight_decay", "final_weight_decay", "clip"):
            value, upper = getattr(self, name), 1.0 if name in BOUNDED_BY_1 else 1e6
            if not 0 <= value <= upper or (value == 1 and name.startswith("beta")):
                flag = f"--optim.{name.replace('_', '-')}"
                limits = "in [0, 1)" if name.startswith("beta") else f"between 0 and {upper:g}"
                raise UserError(f"{flag} must be {limits}, got {value:g}: try {flag} {getattr(Optim, name):g}")

    def at(self, step: int, total: int) -> Hyperparameters:
        """Return learning rate, weight decay and EMA momentum of a step, counted from 0, of `total`."""
        warmup, hold = round(self.warmup * total), round(self.constant_fraction * total)
        total = round(self.stretch * total)
        return Hyperparameters(
            learning_rate(
                step,
                total,
                warmup,
                self.start_lr,
                self.lr,
                self.final_lr,
                hold,
            ),
            weight_decay(step, total, self.weight_decay, self.final_weight_decay, self.weight_decay_shape),
            ema_momentum(step, total, self.ema_momentum, self.final_ema_momentum, self.ema_rampup),
        )


class Hyperparameters(NamedTuple):
    """The scheduled values of one step."""

    lr: float
    weight_decay: float
    momentum: float  # of the EMA


def build_optimizer(method: BaseMethod, settings: Optim) -> torch.optim.AdamW:
    """Build fused AdamW, with Muon for the matrices of blocks if requested.

    Weight decay applies to matrices, not to biases and norms.
    Source: appendix A.1. As in the official code, the mask token, which is 3-D, has weight decay.
    """
    blocks: dict[Tensor, int] = block_matrices(method) if settings.optimizer == "muon" else {}
    groups = [each for group in method.param_groups() for each in split_group(group, blocks)]
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda")
    optimizer = Muon if blocks else torch.optim.AdamW
    return optimizer(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=fused)


def split_group(group: ParamGroup, blocks: dict[Tensor, int]) -> Iterator[dict[str, Any]]:
    """Yield the parts of a group that differ in weight decay or optimizer: matrices, biases and norms, Muon's."""
    decayed = [p for p in group.params if p.ndim > 1 and p not in blocks]
    not_decayed = [p for p in group.params if p.ndim <= 1]
    own = {id(p) for p in group.params}
    muon = [p for p in blocks if id(p) in own]
    if decayed:
        yield {"params": decayed, "decays": True, "lr_scale": group.lr_scale}
    if not_decayed:
        yield {"params": not_decayed, "weight_decay": 0.0, "decays": False, "lr_scale": group.lr_scale}
    if muon:
        yield {"params": muon, "decays": True, "pieces": [blocks[p] for p in muon], "lr_scale": group.lr_scale}


def optimizer_state_shapes(optimizer: torch.optim.Optimizer) -> dict[Tensor, dict[str, tuple[int, ...]]]:
    """Return the shapes of the state that the optimizer holds for each parameter after its first step."""
    shapes = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            shape = tuple(p.shape)
            muon, adamw = {"momentum_buffer": shape}, {"exp_avg": shape, "exp_avg_sq": shape, "step": ()}
            shapes[p] = muon if "pieces" in group else adamw
    return shapes


def set_hyperparameters(optimizer: torch.optim.Optimizer, hyperparameters: Hyperparameters) -> None:
    """Set the learning rate and weight decay of this step."""
    for group in optimizer.param_groups:
        group["lr"] = hyperparameters.lr * group["lr_scale"]
        group["weight_decay"] = hyperparameters.weight_decay if group["decays"] else 0.0


def clip_gradients(method: nn.Module, max_norm: float) -> Tensor:
    """Clip the gradient to `max_norm` (0: do not clip); return its norm before clipping.

    The norm stays a tensor, to avoid a device sync.
    """
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    norm = full_tensor(nn.utils.get_total_norm(gradients))
    if max_norm > 0:
        torch._foreach_mul_(local_shards(gradients), (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def step_if_finite(optimizer: torch.optim.Optimizer, norm: Tensor) -> Tensor:
    """Update the weights if the gradient norm is finite; return whether it is.

    The result is a tensor, to avoid a device sync.
    The norm is of the gradient reduced over ranks, so all ranks decide the same. Fused optimizers skip the update on
    the device; others, on devices that are neither CPU nor CUDA, wait for the norm.
    """
    finite = norm.isfinite()
    if not optimizer.defaults["fused"]:
        if finite:
            optimizer.step()
        return finite
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.step()
    return finite
