"""Measure how fast a world model imagines.   B states  N cells  D width  A action's width"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from openjepa.core.types import Batch
from openjepa.nn.world import World, encode_steps

STATES = 1200  # that are imagined at once: 48 plans of 25 tasks

ROUNDS = 20


class Imagination(NamedTuple):
    """The speed of a world's dynamics."""

    steps_per_second: float
    flops: int  # of one imagined step of one state


@torch.no_grad()
def measure_imagination(world: World, modality: Any, batch: Batch) -> Imagination:
    """Imagine steps from the first observations of a batch."""
    assert batch.conditions is not None
    observations = batch.views[0][:, :1]
    state = encode_steps(world, modality.tokens(observations), 1)[:, 0]
    rows = torch.arange(STATES, device=state.device) % len(state)
    state, action = state[rows], batch.conditions[rows, 0].to(state)
    with FlopCounterMode(display=False) as counter:
        world.step(state, action)
    begin = time.perf_counter()
    for _ in range(ROUNDS):
        after = world.step(state, action)
    float(after.sum())  # waits for the device
    seconds = time.perf_counter() - begin
    return Imagination(ROUNDS * STATES / seconds, counter.get_total_flops() // STATES)
