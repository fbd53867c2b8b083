"""Compile transformer blocks before a run, once per mask shape."""

from __future__ import annotations

from typing import Any

import torch
from torch._dynamo import config as limits
from torch._dynamo.exc import TorchDynamoException

from openjepa.core.errors import UserError
from openjepa.core.types import Masks
from openjepa.data.loader import Step
from openjepa.nn.transformer import Block
from openjepa.training.config import Pretrain
from openjepa.training.device import Device
from openjepa.training.perf.flops import MaskShape
from openjepa.training.step import micro_batches

MAX_STATIC_SHAPES = 16  # shapes of masks up to which each gets code of its own

VARIANTS_PER_SHAPE = 8  # of block for one shape: target, context and predictor, these two once more where masks go one by one, and with padding


def compile_blocks(settings: Pretrain, method: Any, step: Step, where: Device, backend: str = "inductor") -> None:
    """Puts `torch.compile` around every transformer block, in place: parameters keep their names, nothing else changes.

    A block and not a network: layers share their code. Every shape that the masks can have is met once, on a step's images, so
    that no later step waits for the compiler, but for rare padding. A sampler of more than 16 shapes, as the released one, gets
    code for any length, when it meets it. No weight moves. Mistake if there is no compiler.
    """
    shapes = settings.masks.build(settings.data.grid).shapes()
    few = len(shapes) <= MAX_STATIC_SHAPES
    if few:  # beyond the limit, of all blocks in this process, a block would silently run as it is
        limits.recompile_limit += VARIANTS_PER_SHAPE * len(shapes)
        limits.accumulated_recompile_limit += VARIANTS_PER_SHAPE * len(shapes)
    for module in method.modules():
        if isinstance(module, Block):
            module.compile(dynamic=False if few else None, backend=backend)
    times = settings.masks.masks_per_sample
    sets = [(shape,) * times for shape in (shapes if few else shapes[:1])]
    if times > 1 and few and len(shapes) > 1:  # unlike masks go through one by one
        sets += [(shape, shapes[place - 1]) for place, shape in enumerate(shapes)]
    try:
        warm_up(settings, method, step, sets, where)
    except TorchDynamoException as error:
        raise UserError(f"torch cannot compile here ({str(error).splitlines()[0]}): leave --compile out") from error


def warm_up(settings: Pretrain, method: Any, step: Step, sets: list[tuple[MaskShape, ...]], where: Device) -> None:
    """Forward and back under masks of these shapes, one set after the other."""
    batch = where.move(step.batch)
    for shapes in sets:
        masks = tuple(dummy_mask(shape, len(batch.index), where) for shape in shapes)
        with where.autocast():
            targets = method.targets(batch, masks)
            micro = next(micro_batches(batch, masks, targets, settings.accumulate))
            loss = method(micro.batch, micro.masks, micro.targets).loss
        loss.backward()
    method.zero_grad(set_to_none=True)


def dummy_mask(shape: MaskShape, samples: int, where: Device) -> Masks:
    """A mask that shows the first tokens and asks for the first."""
    shown, blocks, asked = shape
    context, target = (torch.arange(count, device=where.device) for count in (shown, asked))
    return Masks(context.expand(samples, -1), target.expand(samples, blocks, -1))
