"""Parameter groups, gradient clipping, and a step that is skipped when the gradient is not finite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from openjepa.core.distributed import full_tensor, local_shards
from openjepa.core.errors import UserError
from openjepa.training.muon import Muon, block_matrices
from openjepa.training.schedules import ema_momentum, learning_rate, weight_decay


@dataclass(frozen=True)
class Optim:
    """AdamW and its schedules. Defaults are the released configs'; the paper's weight decay is linear."""

    lr: float = 1e-3
    start_lr: float = 2e-4
    final_lr: float = 1e-6
    warmup: float = 40 / 300  # share of the run
    constant_fraction: float = 0.0  # share of the run at `lr` before it falls: 0 as released
    weight_decay: float = 0.04
    final_weight_decay: float = 0.4
    weight_decay_shape: Literal["cosine", "linear"] = "cosine"
    ema_momentum: float = 0.996  # of the averaged target encoder, linear to `final_momentum`
    final_ema_momentum: float = 1.0
    ema_rampup: float = 0.0  # share of the steps so far that the average spans at most; 0: any
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float = 0.0  # largest gradient norm; 0: no clipping, as released
    optimizer: Literal["adamw", "muon"] = "adamw"  # what moves those of transformer blocks; all else is AdamW's

    def __post_init__(self):
        if min(self.warmup, self.constant_fraction) < 0 or self.warmup + self.constant_fraction >= 1:
            raise UserError(
                f"a warm-up of {self.warmup:g} and a hold of {self.constant_fraction:g} are no shares of a run that leave time for the "
                "learning rate to fall: try --optim.warmup 0.1 --optim.constant-fraction 0.6"
            )

        positive = ("lr", "start_lr", "final_lr", "weight_decay", "final_weight_decay", "clip")
        for name in (*positive, "ema_momentum", "final_ema_momentum", "ema_rampup", "beta1", "beta2"):
            value, most = getattr(self, name), 1.0 if name in positive[:3] or name not in positive else 1e6
            if not 0 <= value <= most or (value == 1 and name.startswith("beta")):
                raise UserError(
                    f"{name} {value:g} is not between 0 and {most:g}: try --optim.{name.replace('_', '-')} {getattr(Optim, name):g}"
                )

    def at(self, step: int, total: int) -> Hyperparameters:
        """The settings of the step-th step, counted from 0, of `total`."""
        return Hyperparameters(
            learning_rate(
                step,
                total,
                round(self.warmup * total),
                self.start_lr,
                self.lr,
                self.final_lr,
                round(self.constant_fraction * total),
            ),
            weight_decay(step, total, self.weight_decay, self.final_weight_decay, self.weight_decay_shape),
            ema_momentum(step, total, self.ema_momentum, self.final_ema_momentum, self.ema_rampup),
        )


class Hyperparameters(NamedTuple):
    lr: float
    weight_decay: float
    momentum: float


def build_optimizer(method: nn.Module, config: Optim) -> torch.optim.AdamW:
    """Fused AdamW over two groups: matrices with weight decay, biases and norms without; those of blocks by Muon if asked.

    Source: appendix A.1. As released, the mask token (3-D) is decayed.
    """
    trained = [p for p in method.parameters() if p.requires_grad]
    blocks = block_matrices(method) if config.optimizer == "muon" else {}
    decayed = [p for p in trained if p.ndim > 1 and p not in blocks]
    free = [p for p in trained if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "decays": True},
        {"params": free, "weight_decay": 0.0, "decays": False},
    ]
    if blocks:
        groups.append({"params": list(blocks), "decays": True, "pieces": list(blocks.values())})
    fused = trained[0].device.type in ("cpu", "cuda")
    kind = Muon if blocks else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=fused)


def optimizer_state_shapes(optimizer: torch.optim.Optimizer) -> dict[Tensor, dict[str, tuple[int, ...]]]:
    """What an optimiser keeps of each parameter, once a step is taken, and in which shape."""
    found = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            shape = tuple(p.shape)
            average = {"momentum_buffer": shape}
            found[p] = average if "pieces" in group else {"exp_avg": shape, "exp_avg_sq": shape, "step": ()}
    return found


def set_hyperparameters(optimizer: torch.optim.Optimizer, hyper: Hyperparameters) -> None:
    """Sets this step's learning rate and weight decay."""
    for group in optimizer.param_groups:
        group["lr"] = hyper.lr
        group["weight_decay"] = hyper.weight_decay if group["decays"] else 0.0


def clip_gradients(method: nn.Module, limit: float) -> Tensor:
    """The norm of the whole gradient before clipping it to `limit` (0: not at all). A tensor, so that nobody waits."""
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    norm = full_tensor(nn.utils.get_total_norm(gradients))
    if limit > 0:
        torch._foreach_mul_(local_shards(gradients), (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm


def step_if_finite(optimizer: torch.optim.Optimizer, norm: Tensor) -> Tensor:
    """Updates the weights unless the gradient is not finite; whether it did, as a tensor, so that nobody waits.

    The norm is taken after the reduction over ranks, so all ranks decide alike. A fused optimiser skips on the device;
    one that is not, on devices other than CPU and CUDA, waits.
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
