"""Load a trained run as the world of an agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.data.synthetic.room_layouts import WORLDS
from openjepa.data.synthetic.rooms import shorten
from openjepa.interop.pretrained import load_run
from openjepa.methods.actor import Actor
from openjepa.methods.critic import Critic
from openjepa.nn.level import Hierarchy
from openjepa.nn.world import World
from openjepa.planning.configurator import Configurator
from openjepa.training.stages import last_stage


class RoomSystem(NamedTuple):
    """A world that was trained in rooms."""

    folder: Path  # of the last stage
    env: str
    world: World  # with a critic and a policy if they were trained
    modality: Any
    pushes: Tensor | None  # the actions of the policy

    def configurator(self, seed: int) -> Configurator:
        """Return what builds agents on this world."""
        return Configurator(self.world, self.modality, shorten, self.pushes, seed=seed)


def load_room_system(run: str, env: str | None = None) -> RoomSystem:
    """Load the last stage of a run. Raises UserError if it is no world model of rooms."""
    folder = last_stage(Path(run))
    trained = load_run(folder)
    if not isinstance(trained.network, World):
        raise UserError(f"{run} is no world model: train one, jepa pretrain world-rooms --out runs/rooms")
    if trained.data.sensors != "frames" or trained.data.root or trained.data.world not in WORLDS:
        raise UserError(f"{run} was not trained in rooms: give the run of jepa pretrain world-rooms")
    check_frames(trained.data, env or trained.data.world)
    trained.network.requires_grad_(False).eval()
    method = trained.config.method
    critic = method.critic if isinstance(method, Actor) else method
    pushes = critic.pushes(trained.data) if isinstance(critic, Critic) else None
    return RoomSystem(folder, env or trained.data.world, trained.network, trained.data, pushes)


def check_frames(data: Any, env: str) -> None:
    """Raise UserError if the frames of a world of rooms are not of the kind that a run was trained on."""
    family = WORLDS[env]
    if (data.size, data.channels) != ((family.side, family.side), family.channels):
        raise UserError(f"the run was trained in {data.world}, whose frames are not those of {env}: leave --env out")


def require_one_level(system: RoomSystem, run: str) -> None:
    """Raise UserError if the world is a hierarchy, which plans without a critic and in another way."""
    if isinstance(system.world, Hierarchy):
        raise UserError(f"{run} has several levels: type jepa plan {run} --compare, or jepa show levels {run}")
