"""Run one training step: targets, gradients, optimizer update, EMA update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.types import Batch, Masks, Output
from openjepa.training.device import Device
from openjepa.training.optim import Hyperparameters, clip_gradients, set_hyperparameters, step_if_finite
from openjepa.training.parallel.ddp import sync_only_when


class StepResult(NamedTuple):
    """The result of a training step; all tensors stay on the device."""

    loss: Float[Tensor, ""]  # mean over this rank's samples
    grad_norm: Float[Tensor, ""]  # of the gradient reduced over all ranks, before clipping
    finite: Bool[Tensor, ""]  # whether the gradient was finite, so that the weights were updated
    output: Output  # of the last micro-batch


def train_step(
    method: Any,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    masks: tuple[Masks, ...],
    hyperparameters: Hyperparameters,
    device: Device,
    accumulate: int = 1,
    clip: float = 0.0,
    forward: Any = None,
) -> StepResult:
    """Run one training step: targets, forward and backward passes, optimizer update, EMA update.

    `forward` is the DDP wrapper of the method; without one the method itself is called.
    """
    forward = forward or method
    set_hyperparameters(optimizer, hyperparameters)
    optimizer.zero_grad(set_to_none=True)
    with device.autocast():
        targets = method.targets(batch, masks)
    outputs: list[Output] = []
    for micro in micro_batches(batch, masks, targets, accumulate):
        with sync_only_when(forward, micro.last):
            with device.autocast():
                outputs.append(forward(micro.batch, micro.masks, micro.targets))
            (outputs[-1].loss / accumulate).backward()
    norm = clip_gradients(method, clip)  # after the reduction over ranks: the same value on every rank
    with device.autocast():  # for Muon's matmuls
        finite = step_if_finite(optimizer, norm)
    method.after_step(hyperparameters.momentum, finite)
    loss = torch.stack([output.loss.detach() for output in outputs]).mean()
    return StepResult(loss, norm, finite, outputs[-1])


class MicroBatch(NamedTuple):
    """One of the equal parts of a batch, small enough for memory."""

    batch: Batch
    masks: tuple[Masks, ...]
    targets: Any
    last: bool  # whether it is the last of its batch, after which gradients are reduced over ranks


def micro_batches(batch: Batch, masks: tuple[Masks, ...], targets: Any, parts: int) -> Iterator[MicroBatch]:
    """Split a batch into equal micro-batches. Values without a batch axis go to every one of them."""
    size = len(batch.index) // parts
    for part in range(parts):
        rows = slice(part * size, (part + 1) * size)
        yield MicroBatch(*(slice_batch(value, rows) for value in (batch, masks, targets)), last=part == parts - 1)


def slice_batch(value: Any, rows: slice) -> Any:
    """Return these rows of a tensor, or of every tensor in a (named) tuple."""
    if isinstance(value, Tensor):
        return value[rows] if value.ndim else value
    if isinstance(value, tuple):
        parts = [slice_batch(each, rows) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
