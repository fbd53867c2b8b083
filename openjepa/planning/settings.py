"""Settings of `jepa collect`; without torch, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from openjepa.core.errors import UserError

Environment = Annotated[str, Positional, arg(metavar="ENV")]


@dataclass(frozen=True, kw_only=True)
class Collect:
    """Collect episodes of an environment into a folder of .npz files, to train a world model on.

    Each file has `actions` (T, A), `states` (T+1, S) or `observations` (T+1, H, W, C) or both, `rewards` (T) and
    `terminated`. Discrete actions are one-hot vectors. The same seed collects the same files.

    Example: jepa collect CartPole-v1 --episodes 200 --out data/cartpole
    and then: jepa pretrain --modality trajectory --data.root data/cartpole --out runs/cartpole
    """

    env: Environment  # an environment of gymnasium, such as CartPole-v1 or Pendulum-v1; two-rooms; four-rooms
    out: Path  # folder for the episodes; it must be new or empty
    episodes: int = 100  # files to write
    # random: uniform actions, in rooms pushes that go on for some steps; known: a hand-written controller, of
    # CartPole-v1 and Pendulum-v1
    policy: Literal["random", "known"] = "random"
    pixels: int = 0  # side of rendered frames, saved beside states; 0: none, and rooms as they are, 33
    steps: int = 0  # longest episode; 0: until the environment ends it, and 100 in rooms
    seed: int = 0  # seed of first states and actions

    def __post_init__(self):
        for name, lowest in (("episodes", 1), ("pixels", 0), ("steps", 0), ("seed", 0)):
            if (value := getattr(self, name)) < lowest:
                raise UserError(f"--{name} must be >= {lowest}, got {value}")
