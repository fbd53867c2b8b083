"""Run one training step: targets, gradients, optimizer update, EMA update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.capabilities import Prepares
from openjepa.core.types import Batch, Output, Shared
from openjepa.training.device import Device
from openjepa.training.optim import Hyperparameters, clip_gradients, set_hyperparameters, step_if_finite
from openjepa.training.parallel.ddp import sync_only_when


class StepResult(NamedTuple):
    """The result of a training step; all tensors stay on the device."""

    output: Output  # of this rank's samples, without gradient
    grad_norm: Float[Tensor, ""]  # of the gradient reduced over all ranks, before clipping
    finite: Bool[Tensor, ""]  # whether the gradient was finite, so that the weights were updated


def train_step(
    method: Any,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
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
    with device.autocast(), torch.no_grad():
        batch = prepare_views(method, batch)
        batch = batch._replace(masks=method.masks(batch))
        targets = method.targets(batch)
    outputs: list[Output] = []
    for micro in micro_batches(batch, targets, accumulate):
        with sync_only_when(forward, micro.last):
            with device.autocast():
                outputs.append(forward(micro.batch, micro.targets))
            (outputs[-1].loss / accumulate).backward()
    norm = clip_gradients(method, clip)  # after the reduction over ranks: the same value on every rank
    with device.autocast():  # for Muon's matmuls
        finite = step_if_finite(optimizer, norm)
    method.after_step(hyperparameters.momentum, finite)
    return StepResult(mean_output(outputs), norm, finite)


def prepare_views(method: Any, batch: Batch) -> Batch:
    """Let the modality compute what targets and forward pass both need of the views, if it has such a thing."""
    modality = getattr(method, "modality", None)
    if batch.stream or not isinstance(modality, Prepares):  # other streams may have other modalities
        return batch
    return batch._replace(views=tuple(modality.prepare(view) for view in batch.views))


def mean_output(outputs: list[Output]) -> Output:
    """Return the output of the whole batch: the mean loss and metrics of its micro-batches, and all features."""
    loss = torch.stack([output.loss.detach() for output in outputs]).mean()
    metrics = {name: torch.stack([output.metrics[name] for output in outputs]).mean() for name in outputs[0].metrics}
    return Output(loss, metrics, torch.cat([output.features for output in outputs]))


class MicroBatch(NamedTuple):
    """One of the equal parts of a batch, small enough for memory."""

    batch: Batch
    targets: Any
    last: bool  # whether it is the last of its batch, after which gradients are reduced over ranks


def micro_batches(batch: Batch, targets: Any, parts: int) -> Iterator[MicroBatch]:
    """Split a batch into equal micro-batches. Scalars and values in `Shared` go to every one of them."""
    count = len(batch.index)
    size = count // parts
    for part in range(parts):
        rows = slice(part * size, (part + 1) * size)
        split = (slice_batch(value, rows, count) for value in (batch, targets))
        yield MicroBatch(*split, last=part == parts - 1)


def slice_batch(value: Any, rows: slice, count: int) -> Any:
    """Return these rows of a tensor of `count` samples, or of every tensor in a (named) tuple.

    Raises ValueError for a tensor with another number of rows, which would be cut wrongly.
    """
    if isinstance(value, Shared):
        return value
    if isinstance(value, Tensor):
        if value.ndim and len(value) != count:
            raise ValueError(
                f"a tensor of shape {tuple(value.shape)} has no row for each of the {count} samples of the batch: "
                "put values that all samples share into openjepa.core.types.Shared"
            )
        return value[rows] if value.ndim else value
    if isinstance(value, tuple):
        parts = [slice_batch(each, rows, count) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
