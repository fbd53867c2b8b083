"""Trajectories: observations over time and the actions between them.

B batch  T steps  F observations  C channels  H W pixels  S values of a state  N tokens  E width of a token
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset, Tokenizer
from openjepa.core.types import FileList, Layout, Tokens
from openjepa.data.cart_drives import CartDrives
from openjepa.data.episode_listing import SUFFIXES, list_episodes
from openjepa.data.episode_survey import choose_cells, survey_episodes
from openjepa.data.episodes import Episodes
from openjepa.data.normalization import measure_mean_std
from openjepa.data.rendered import FORMS
from openjepa.data.room_walks import RoomWalks
from openjepa.data.synthetic.room_layouts import WORLDS
from openjepa.data.synthetic.rooms import TURN
from openjepa.nn.stems import WindowEmbed


@dataclass(frozen=True)
class Trajectory:
    """Episodes of frames or states with actions: the world, or the files, and how a frame is cut into cells."""

    plural: ClassVar[str] = "episodes"
    suffixes: ClassVar = SUFFIXES

    # folders of episodes: .npz files with `observations` (T+1, H, W, C) or `states` (T+1, S), and `actions` (T, A);
    # folders of images with actions.npy; or a LeRobot data set (v3.0). Empty: a world that is rendered when it is read
    root: tuple[str, ...] = ()
    world: str = "two-rooms"  # rendered: two-rooms, four-rooms, four-rooms-distractor, winding, cart-pole
    episodes: int = 65_536  # of the rendered world: random walks in rooms, or drives of a cart
    steps: int = 8  # observations of a window after the first
    stride: int = 1  # actions from one observation to the next
    restart: int = 0  # rooms: observations after which the walk goes on elsewhere in the same room; 0: never
    turn: float = TURN  # rooms: probability that a walk takes another direction, at each step
    sensors: Literal["frames", "states"] = "frames"  # what is observed, of files that may have both
    size: tuple[int, int] = (33, 33)  # height and width of a frame; frames of files are resized to it
    channels: int = 2  # of a frame, as in .npz files; 1 or 3 of images and videos
    patch: int = 3  # side of a cell in pixels
    state_dim: int = 0  # values of a state, as in the files
    action_dim: int = 2  # values of an action, as in the files
    action_scale: float = 1.0  # actions of files are divided by this, so that they are of the order of 1
    camera: str = ""  # key of the video in a LeRobot data set, such as observation.images.top; empty: the first
    scale: tuple[float, ...] = (0.1, 0.4)  # each channel of rooms, from 0 to 1, is divided by this
    mean: tuple[float, ...] = ()  # of each value of a state, or each channel in [0, 1]; empty: measured on the files
    std: tuple[float, ...] = ()  # standard deviation of each, likewise

    def __post_init__(self):
        if any(side % self.patch for side in self.size):
            raise UserError(f"--data.size {self.size} is not a multiple of --data.patch {self.patch}")
        if self.action_scale <= 0:
            raise UserError(f"--data.action-scale must be > 0, got {self.action_scale:g}: try --data.action-scale 1")
        for name in ("steps", "stride"):
            if getattr(self, name) < 1:
                raise UserError(f"--data.{name} must be >= 1, got {getattr(self, name)}")

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of cells; a state is one cell."""
        if self.sensors == "states":
            return 1, 1
        return self.size[0] // self.patch, self.size[1] // self.patch

    @property
    def layout(self) -> Layout:
        """Return a grid of time steps, rows and columns."""
        return Layout.grid(self.steps + 1, *self.grid)

    @property
    def token_dim(self) -> int:
        return self.state_dim if self.sensors == "states" else self.channels * self.patch**2

    def listing(self) -> FileList:
        if self.root:
            return list_episodes(self.root)
        return FileList([self.world], f"{self.world}-{self.episodes}")

    def dataset(self, source: FileList, cache: Path | None = None) -> Dataset:
        """Open the episodes of a list of files, or the rooms. Raises UserError if they do not fit these settings."""
        if self.root:
            return Episodes(self, source.paths, source.fingerprint if cache else source.known_fingerprint)
        return self.synthetic(self.episodes, 0)

    def synthetic(self, size: int, seed: int) -> Dataset:
        """Return what happens in the rendered world. Raises UserError if its frames are not as these settings say."""
        if self.sensors == "states":
            raise UserError("rendered worlds have frames alone: give --data.root FOLDER with --data.sensors states")
        self.check_world()
        if self.world in WORLDS:
            return RoomWalks(self.world, size, self.steps, self.stride, self.restart, seed, self.turn)
        return CartDrives(size, self.steps, seed)

    def check_world(self) -> None:
        """Raise UserError if there is no such rendered world, or its frames are not as these settings say."""
        if self.world not in FORMS:
            raise UserError(f"there is no --data.world {self.world}: choose of {', '.join(FORMS)}")
        form = FORMS[self.world]
        settings = (self.size, self.channels, len(self.scale), self.action_dim)
        if settings != (form.size, form.channels, form.channels, form.action_dim):
            raise UserError(
                f"frames of {self.world} have {form.channels} channels of {form.size[0]}×{form.size[1]} pixels: give "
                f"--data.size {form.size[0]} {form.size[1]} --data.channels {form.channels} --data.patch {form.patch} "
                f"--data.scale {' '.join(map(str, form.scale))} --data.action-dim {form.action_dim}"
            )
        if self.world not in WORLDS and (self.stride, self.restart) != (1, 0):
            raise UserError(f"drives of {self.world} have a command at each frame: leave --data.stride and restart out")

    def tokens(self, view: UInt8[Tensor, "B F C H W"] | Float[Tensor, "B F S"]) -> Tokens:
        """Normalize the observations, and cut frames into cells; a token's position is its time step, row and column.

        This is the only place where observations are normalized.
        """
        rows, columns = self.grid
        x = self.normalize(view)
        if self.sensors == "frames":
            x = x.unflatten(4, (columns, self.patch)).unflatten(3, (rows, self.patch))  # B F C Y p X p
            x = x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)
        axes = (torch.arange(size, device=view.device).float() for size in (view.shape[1], rows, columns))
        pos = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 2)
        return Tokens(x, pos.expand(len(view), -1, -1))

    def normalize(
        self, view: UInt8[Tensor, "B F C H W"] | Float[Tensor, "B F S"]
    ) -> Float[Tensor, "B F C H W"] | Float[Tensor, "B F S"]:
        """Subtract the mean and divide by the standard deviation, or divide the frames of rooms by their scale."""
        levels, axes = (1, ()) if self.sensors == "states" else (255, (None, None))
        if not self.mean:
            scale = self.scale if self.sensors == "frames" else (1.0,)
            return view.float() / view.new_tensor(scale, dtype=torch.float32).mul(levels)[(..., *axes)]
        mean, std = (view.new_tensor(each, dtype=torch.float32).mul(levels) for each in (self.mean, self.std))
        return (view.float() - mean[(..., *axes)]) / std[(..., *axes)]

    def tokenizer(self, dim: int) -> Tokenizer:
        return WindowEmbed(self.token_dim, dim)

    @property
    def statistics(self) -> dict[str, tuple[float, ...]]:
        return {"mean": self.mean, "std": self.std} if self.root else {}

    def measure(self, data: Any) -> Trajectory:
        """Return the modality with the statistics of its states or frames; frames with a `scale` need none."""
        if self.mean or not self.root or (self.sensors == "frames" and len(self.scale) == self.channels):
            return self
        if self.sensors == "states":
            return dataclasses.replace(self, **data.statistics)
        mean, std = measure_mean_std(data, max_samples=256, batch_size=8)
        return dataclasses.replace(self, mean=mean, std=std)

    def suggest(self) -> tuple[Trajectory, tuple[str, ...]]:
        """Take what is observed, its size, and the width of an action from the files below the root."""
        survey = survey_episodes(self.listing().paths, self.camera)
        size, patch = choose_cells(survey.size) if survey.channels else (self.size, self.patch)
        data = dataclasses.replace(
            self,
            steps=min(self.steps, max(1, survey.length // (2 * self.stride))),  # several windows of most episodes
            sensors="frames" if survey.channels else "states",
            size=size,
            patch=patch,
            channels=survey.channels or self.channels,
            state_dim=survey.state_dim,
            action_dim=survey.action_dim,
            action_scale=survey.action_scale,
        )
        return data, (survey.describe(),)
