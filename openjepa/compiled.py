"""Transformer blocks compiled before a run, once for each shape that its masks have."""

from __future__ import annotations

from typing import Any

import torch
from torch._dynamo import config as limits
from torch._dynamo.exc import TorchDynamoException

from openjepa.config import Pretrain
from openjepa.data import Step
from openjepa.device import Place
from openjepa.nn.transformer import Block
from openjepa.training import split
from openjepa.types import Masks, Mistake

STATIC = 16  # shapes of masks up to which each gets code of its own
KINDS = 4  # of block in a step: target, context and predictor, and the last with padding


def compile_blocks(settings: Pretrain, method: Any, step: Step, where: Place, backend: str = "inductor") -> None:
    """Puts `torch.compile` around every transformer block, in place: parameters keep their names, nothing else changes.

    A block and not a network: layers share their code. Every shape that the masks can have is met once, on a step's images, so
    that no later step waits for the compiler, but for rare padding. A sampler of more than 16 shapes, as the released one, gets
    code for any length, when it meets it. No weight moves. Mistake if there is no compiler.
    """
    shapes = settings.masks.build(settings.data.grid).shapes()
    few = len(shapes) <= STATIC
    if few:  # beyond the limit a block would silently run as it is
        limits.recompile_limit = max(limits.recompile_limit, KINDS * len(shapes))
    for module in method.modules():
        if isinstance(module, Block):
            module.compile(dynamic=False if few else None, backend=backend)
    try:
        meet(settings, method, step, shapes if few else shapes[:1], where)
    except TorchDynamoException as error:
        raise Mistake(f"torch cannot compile here ({str(error).splitlines()[0]}): leave --compile out") from error


def meet(settings: Pretrain, method: Any, step: Step, shapes: list[tuple[int, int, int]], where: Place) -> None:
    """Forward and back under a mask of every shape."""
    batch = where.move(step.batch)
    for shown, blocks, asked in shapes:
        size = len(batch.number)
        context = torch.arange(shown, device=where.device).expand(size, -1)
        target = torch.arange(asked, device=where.device).expand(size, blocks, -1)
        masks = (Masks(context, target),) * settings.masks.times
        with where.autocast():
            targets = method.targets(batch, masks)
            micro = next(split(batch, masks, targets, settings.accumulate))
            loss = method(micro.batch, micro.masks, micro.targets).loss
        loss.backward()
    method.zero_grad(set_to_none=True)
