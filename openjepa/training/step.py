"""One training step: targets, gradients, update, EMA."""

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
    """What a step leaves behind, all on the device."""

    loss: Float[Tensor, ""]  # of this rank's samples
    grad_norm: Float[Tensor, ""]  # of the gradient over all ranks, before clipping
    finite: Bool[Tensor, ""]  # whether the weights were updated
    output: Output  # of the last micro-batch


def train_step(
    method: Any,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    masks: tuple[Masks, ...],
    hyper: Hyperparameters,
    place: Device,
    accumulate: int = 1,
    clip: float = 0.0,
    forward: Any = None,
) -> StepResult:
    """One training step: targets, gradients, update, average. `forward` is the method as replicated over ranks, if it is."""
    forward = forward or method
    set_hyperparameters(optimizer, hyper)
    optimizer.zero_grad(set_to_none=True)
    with place.autocast():
        targets = method.targets(batch, masks)
    outputs: list[Output] = []
    for micro in micro_batches(batch, masks, targets, accumulate):
        with sync_only_when(forward, micro.last):
            with place.autocast():
                outputs.append(forward(micro.batch, micro.masks, micro.targets))
            (outputs[-1].loss / accumulate).backward()
    norm = clip_gradients(method, clip)  # after the reduction: the same number on every rank
    with place.autocast():  # for Muon's products
        finite = step_if_finite(optimizer, norm)
    method.after_step(hyper.momentum, finite)
    loss = torch.stack([output.loss.detach() for output in outputs]).mean()
    return StepResult(loss, norm, finite, outputs[-1])


class MicroBatch(NamedTuple):
    """A part of the batch, small enough for memory."""

    batch: Batch
    masks: tuple[Masks, ...]
    targets: Any
    last: bool


def micro_batches(batch: Batch, masks: tuple[Masks, ...], targets: Any, parts: int) -> Iterator[MicroBatch]:
    """The batch in equal parts. Values without a batch axis go with every part."""
    size = len(batch.index) // parts
    for part in range(parts):
        cut = slice(part * size, (part + 1) * size)
        yield MicroBatch(*(slice_batch(value, cut) for value in (batch, masks, targets)), last=part == parts - 1)


def slice_batch(value: Any, cut: slice) -> Any:
    if isinstance(value, Tensor):
        return value[cut] if value.ndim else value
    if isinstance(value, tuple):
        parts = [slice_batch(each, cut) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
