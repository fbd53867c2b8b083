"""Driven carts with poles as a data set: drawn when they are read, so that nothing is stored.   B drives"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Samples
from openjepa.data.synthetic.cart_pole import draw_drives, draw_pair


@dataclass(frozen=True)
class CartDrives:
    """Drive n is a function of (seed, n): a view has `steps` + 1 frames, with a command from one to the next."""

    size: int
    steps: int
    seed: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @property
    def fingerprint(self) -> str:
        return f"cart-pole-{self.size}-{self.steps}-{self.seed}"

    def __len__(self) -> int:
        return self.size

    def source(self, index: int) -> str:
        return str(index)

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        drives = draw_drives(CounterRNG.of(self.seed, 0, index.numpy()), self.steps)
        return Samples((draw_pair(drives.state),), torch.full((len(index),), -1), conditions=drives.command[..., None])
