"""Draw how far each position is from a goal: by latents, by the critic, and along the shortest way.

B tasks  R rows: positions  H W pixels of a frame
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.data.synthetic.geodesic import geodesic_distance
from openjepa.data.synthetic.rooms import BORDER, MAX_STEP
from openjepa.methods.critic import ValuedWorld
from openjepa.planning.costs import critic_value, latent_distance
from openjepa.planning.diagnosis import encode
from openjepa.planning.envs.rooms import RoomTasks, draw_tasks
from openjepa.planning.systems import RoomSystem, load_room_system
from openjepa.viz.canvas import COLOR_MAP, CaptionedFigure
from openjepa.viz.settings import ValueOptions
from openjepa.viz.world_maps import draw_walls

TITLES = ("distance of latents", "critic: steps to the goal", "shortest way: steps")


def show_value(settings: ValueOptions) -> list[CaptionedFigure]:
    """Draw three maps for each of some tasks in held-out layouts. Raises UserError if the run has no critic."""
    system = load_room_system(settings.run, settings.env)
    if not isinstance(system.world, ValuedWorld):
        raise UserError(f"{settings.run} has no critic: train all stages, jepa pretrain world-rooms")
    tasks = draw_tasks(system.env, settings.count, settings.seed)
    figure = Figure(figsize=(9.6, 3.0 * settings.count), layout="constrained")
    panels = figure.subplots(settings.count, 3, squeeze=False)
    for row in range(settings.count):
        one = tasks.select(slice(row, row + 1))
        for axes, title, values in zip(panels[row], TITLES, value_maps(system, one), strict=True):
            picture = axes.imshow(values, extent=(0, len(values), len(values), 0), cmap=COLOR_MAP)
            levels = np.linspace(np.nanmin(values), np.nanmax(values), 12)
            centers = np.arange(len(values)) + 0.5
            axes.contour(centers, centers, values, levels, colors="white", linewidths=0.5)
            draw_walls(axes, one.rooms.wall[0].numpy(), None, one.goal[0].numpy())
            axes.set_title(title, fontsize=9)
            figure.colorbar(picture, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)
    caption = (
        "How far each position of the agent is from the goal (star), in layouts that never occur in training. The "
        "distance of latents sees through walls; the critic must go around them."
    )
    return [CaptionedFigure("value", f"Values of {settings.run}", caption, figure)]


@torch.no_grad()
def value_maps(system: RoomSystem, task: RoomTasks) -> list[Float[np.ndarray, "H W"]]:
    """Return the distance of latents, the critic's value and the shortest way for each position; NaN in walls."""
    world, wall = system.world, task.rooms.wall
    assert isinstance(world, ValuedWorld)
    side, edge = wall.shape[-1], int(BORDER)
    inside = torch.zeros(side, dtype=torch.bool)
    inside[edge : side - edge] = True
    free = ~wall[0] & inside & inside[:, None]
    row, column = free.nonzero(as_tuple=True)
    frames = task.frames_at(torch.stack([column, row], 1) + 0.5)
    states = encode(world, system.modality, frames)
    goal = encode(world, system.modality, task.goal_frames())

    def to_map(values: Tensor) -> Float[np.ndarray, "H W"]:
        filled = torch.full(free.shape, float("nan"))
        filled[free] = values
        return filled.numpy()

    shortest = geodesic_distance(wall, task.goal)[0] / MAX_STEP
    return [
        to_map(latent_distance(goal)(states)[0].sqrt()),
        to_map(critic_value(world, goal)(states)[0]),
        to_map(shortest[free]),
    ]
