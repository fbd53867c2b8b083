"""Compile transformer blocks before a run, once per mask shape."""

from __future__ import annotations

from typing import Any

import torch
from torch._dynamo import config as limits
from torch._dynamo.exc import TorchDynamoException

from openjepa.core.errors import UserError
from openjepa.core.types import Masks, MaskShape
from openjepa.data.loader import Step
from openjepa.nn.transformer import Block
from openjepa.training.config import Pretrain
from openjepa.training.device import Device
from openjepa.training.step import micro_batches, prepare_views

MAX_STATIC_SHAPES = 16  # with at most this many mask shapes, each shape gets code of its own

# Compiled variants of a block per mask shape: target, context and predictor, the last two once more where masks go
# through one by one, and the variants with padding.
VARIANTS_PER_SHAPE = 8


def compile_blocks(settings: Pretrain, method: Any, step: Step, device: Device, backend: str = "inductor") -> None:
    """Apply `torch.compile` to every transformer block, in place; parameters keep their names.

    Compiles blocks rather than networks because layers then share their code. Every shape that the masks can have runs
    once, on the images of `step`, so that no later step waits for the compiler, except for rare padding. A sampler with
    more than 16 shapes, such as the official one, gets code for any length, compiled when it is first needed. No weight
    changes. Raises UserError if torch finds no compiler.
    """
    layout = settings.data.layout
    shapes = settings.masks.shapes(layout) if settings.method.needs_masks else [(layout.count, 0, 0)]
    static = 0 < len(shapes) <= MAX_STATIC_SHAPES
    if static:  # a block beyond the limit, which counts all blocks of the process, silently runs uncompiled
        limits.recompile_limit += VARIANTS_PER_SHAPE * len(shapes)
        limits.accumulated_recompile_limit += VARIANTS_PER_SHAPE * len(shapes)
    for module in method.modules():
        if isinstance(module, Block):
            module.compile(dynamic=False if static else None, backend=backend)
    times = settings.masks.masks_per_sample
    sets = [(shape,) * times for shape in (shapes if static else shapes[:1])]
    if times > 1 and static and len(shapes) > 1:  # masks of different shapes go through one by one
        sets += [(shape, shapes[index - 1]) for index, shape in enumerate(shapes)]
    try:
        warm_up(settings, method, step, sets, device)
    except TorchDynamoException as error:
        raise UserError(f"torch cannot compile here ({str(error).splitlines()[0]}): leave out --compile") from error


def warm_up(settings: Pretrain, method: Any, step: Step, sets: list[tuple[MaskShape, ...]], device: Device) -> None:
    """Run forward and backward with dummy masks of each set of shapes."""
    batch = prepare_views(method, device.move(step.batch))
    for shapes in sets:
        masks = tuple(dummy_mask(shape, len(batch.index), device) for shape in shapes)
        masked = batch._replace(masks=masks)
        with device.autocast():
            targets = method.targets(masked)
            micro = next(micro_batches(masked, targets, settings.accumulate))
            loss = method(micro.batch, micro.targets).loss
        loss.backward()
    method.zero_grad(set_to_none=True)


def dummy_mask(shape: MaskShape, samples: int, device: Device) -> Masks:
    """Return masks of a shape, with the first tokens as context and also as every target block."""
    context_size, blocks, target_size = shape
    context, target = (torch.arange(count, device=device.device) for count in (context_size, target_size))
    return Masks(context.expand(samples, -1), target.expand(samples, blocks, -1))
