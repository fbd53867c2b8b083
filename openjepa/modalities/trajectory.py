"""Trajectories: observations over time and the actions between them.

B batch  T steps  F observations  C channels  H W pixels  N tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset, Tokenizer
from openjepa.core.types import FileList, Layout, Tokens
from openjepa.data.room_walks import RoomWalks
from openjepa.nn.stems import WindowEmbed


@dataclass(frozen=True)
class Trajectory:
    """Episodes of frames with actions: the world, or the files, and how a frame is cut into cells."""

    plural: ClassVar[str] = "episodes"

    world: str = "two-rooms"  # rendered when it is read: two-rooms, four-rooms
    episodes: int = 65_536  # random walks in the world
    steps: int = 8  # observations of an episode after the first
    stride: int = 1  # actions from one observation to the next
    restart: int = 0  # observations after which the walk goes on elsewhere in the same room; 0: never
    size: tuple[int, int] = (33, 33)  # height and width of a frame
    channels: int = 2
    patch: int = 3  # side of a cell in pixels
    action_dim: int = 2
    scale: tuple[float, ...] = (0.1, 0.4)  # each channel, from 0 to 1, is divided by this

    def __post_init__(self):
        if any(side % self.patch for side in self.size):
            raise UserError(f"--data.size {self.size} is not a multiple of --data.patch {self.patch}")

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of cells."""
        return self.size[0] // self.patch, self.size[1] // self.patch

    @property
    def layout(self) -> Layout:
        """Return a grid of time steps, rows and columns."""
        return Layout.grid(self.steps + 1, *self.grid)

    @property
    def token_dim(self) -> int:
        return self.channels * self.patch**2

    def listing(self) -> FileList:
        return FileList([self.world], f"{self.world}-{self.episodes}")

    def dataset(self, source: FileList, cache: Path | None = None) -> Dataset:
        return RoomWalks(self.world, self.episodes, self.steps, self.stride, self.restart)

    def synthetic(self, size: int, seed: int) -> Dataset:
        return RoomWalks(self.world, size, self.steps, self.stride, self.restart, seed)

    def tokens(self, view: UInt8[Tensor, "B F C H W"]) -> Tokens:
        """Scale the frames and cut them into cells; a token's position is its time step, row and column."""
        rows, columns = self.grid
        scale = view.new_tensor(self.scale, dtype=torch.float32).mul(255)[:, None, None]
        x = view.float() / scale
        x = x.unflatten(4, (columns, self.patch)).unflatten(3, (rows, self.patch))  # B F C Y p X p
        x = x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)
        axes = (torch.arange(size, device=view.device).float() for size in (view.shape[1], rows, columns))
        pos = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 2)
        return Tokens(x, pos.expand(len(view), -1, -1))

    def tokenizer(self, dim: int) -> Tokenizer:
        return WindowEmbed(self.token_dim, dim)
