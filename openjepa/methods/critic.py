"""A critic: how many steps is a goal away? Learned in the imagination of a world model.

B episodes  S states of an episode  G goals of an episode  N cells  D width  P directions  L lengths of pushes
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Output, Signal
from openjepa.methods.base import BaseMethod, WorldConfig
from openjepa.methods.world_model import WorldModel
from openjepa.nn.convnet import ConvNet
from openjepa.nn.directions import directions
from openjepa.nn.ema import update_ema
from openjepa.nn.locator import Location
from openjepa.nn.pushes import PushCache
from openjepa.nn.quasimetric import Quasimetric
from openjepa.nn.value_iteration import FieldReader, GoalField, ValueIteration
from openjepa.nn.world import LocatedWorld, encode_steps

ValuesName = Literal["maps", "quasimetric"]


@dataclass(frozen=True)
class Critic(WorldConfig):
    """Value iteration in imagination, from states that the memory recorded.

    V(s, g) ← min over directions d and lengths n of n + V_ema(state after n pushes in direction d, g);  V(g, g) = 0

    L = mean |V(s, g) - what it becomes|²

    Values start high and come down. At first those above `far` leave out the shortest pushes: a minimum over many
    values is too low by their errors, and where a step costs less than that, values leak through walls.
    Source: LeCun 2022, section 3.2, for a critic that learns from the memory what a state will cost.
    """

    acts: ClassVar[bool] = True

    world: WorldModel = field(default_factory=WorldModel)  # of the run whose weights this one starts from; frozen
    # maps: distances spread over the map of the goal; quasimetric: distance of two embeddings, for comparison
    values: ValuesName = "maps"
    directions: int = 12  # of pushes that are imagined from each state
    lengths: tuple[int, ...] = (1, 2, 4)  # steps of the pushes
    push: float = 1.5  # length of an action
    goals: int = 4  # of the states of an episode
    far: float = 7.0  # steps
    patience: int = 8_000  # samples of the run until which the shortest pushes are left out
    start: float = 40.0  # steps: values come down from there, and none is larger

    def networks(self, modality: Any) -> CriticMethod:
        return CriticMethod(self, modality)

    def pushes(self, modality: Any) -> Float[Tensor, "P A"]:
        """Return the actions that are imagined from each state."""
        return directions(self.directions, modality.action_dim, self.push)

    def check(self, data: Any, masks: Any) -> None:
        """Raise UserError if the world's latents are not maps."""
        self.world.check(data, masks)
        self.world.check_map()

    def describe(self) -> str:
        return f"critic with {self.values} as values on {self.world.describe()}"

    def signals(self) -> tuple[Signal, ...]:
        return ()


class Values(nn.Module):
    """How many steps away a goal is: its distance maps, read where a state attends."""

    def __init__(self, dim: int, cells: tuple[int, int], summary: int, start: float):
        super().__init__()
        self.value_iteration = ValueIteration(dim, cells)
        self.reader = FieldReader(self.value_iteration.maps, cells, summary, 1)
        nn.init.constant_(self.reader.head[-1].bias, start)  # type: ignore[arg-type]

    def field(self, goal: Float[Tensor, "R N D"], where: Location, batch: int) -> GoalField:
        """Return what `forward` reads about R goals, as many for each of a batch of tasks; `where` is the goals'."""
        return self.reader.field(self.value_iteration(goal, where.focus), where, batch)

    def forward(self, field: GoalField, states: Location) -> Float[Tensor, "B G R"]:
        """Return the steps from R states to G goals of each of B tasks; `states` has B · R rows."""
        return self.reader.read(field, states)[..., 0]


class ValuedWorld(LocatedWorld):
    """A frozen world with a locator, and the values of its states for a goal."""

    def __init__(self, perception: ConvNet, dynamics: nn.Module, start: float, values: ValuesName = "maps"):
        super().__init__(perception, dynamics)
        self.requires_grad_(False)
        build = Values if values == "maps" else Quasimetric
        self.values = build(perception.config.dim, perception.cells, self.locator.summary_dim, start)

    def value_field(self, goal: Float[Tensor, "R N D"], batch: int) -> GoalField:
        """Return what the values of states for these goals are read from, as many goals for each task of a batch."""
        return self.values.field(goal, self.locate(goal), batch)


class CriticMethod(BaseMethod):
    """Networks and loss of a `Critic` config."""

    def __init__(self, config: Critic, modality: Any):
        super().__init__()
        self.config, self.modality = config, modality
        self.world = ValuedWorld(*config.world.build_parts(modality), config.start, config.values)
        self.target_values = copy.deepcopy(self.world.values).requires_grad_(False)
        self.imagined = PushCache(self.world, config.pushes(modality), config.lengths)

    def forward(self, batch: Batch, targets: None) -> Output:
        """Compute the error of the values of all states for some of them as goals."""
        (frames,) = batch.views
        states = encode_steps(self.world, self.modality.tokens(frames), frames.shape[1])
        chosen = choose_goals(batch, states.shape[1], self.config.goals)  # B G
        goals = states.gather(1, chosen[..., None, None].expand(-1, -1, *states.shape[2:])).flatten(0, 1)
        target = self.bound(self.values_after_pushes(self.imagined(frames, states), goals, batch.index), chosen)
        value = self.world.values(
            self.world.value_field(goals, len(states)), self.world.locate(states.flatten(0, 1))
        )  # B G S
        error = F.mse_loss(value, target)  # an absolute error would stay at the start: most states are far
        metrics = {"value": value.mean().detach(), "target": target.mean()}
        return Output(error, metrics, states[:, 0].mean(1))

    @torch.no_grad()
    def values_after_pushes(
        self, ends: Location, goals: Float[Tensor, "BG N D"], index: Int[Tensor, "B"]
    ) -> Float[Tensor, "B G S"]:
        """Return the lowest cost over all pushes: their steps, and the EMA critic's value of where they end."""
        lengths, directions = self.config.lengths, self.config.directions
        field = self.target_values.field(goals, self.world.locate(goals), len(index))
        values = self.target_values(field, ends).clamp(min=0.0).unflatten(2, (-1, directions, len(lengths)))
        costs = (values + values.new_tensor(lengths)).amin(3)  # B G S L: over directions
        longer = costs[..., 1:].amin(-1)
        patient = (index < self.config.patience)[:, None, None] & (longer > self.config.far)
        return torch.where(patient, longer, costs.amin(-1))

    def bound(self, target: Float[Tensor, "B G S"], chosen: Int[Tensor, "B G"]) -> Float[Tensor, "B G S"]:
        """Bound targets by the steps that the walk took between two states; 0 at the goal itself."""
        every, restart = torch.arange(target.shape[2], device=target.device), self.modality.restart or target.shape[2]
        steps = self.modality.stride * (every - chosen[..., None]).abs()
        same_walk = every // restart == chosen[..., None] // restart
        return torch.where(same_walk, torch.minimum(target, steps.to(target)), target).clamp(max=self.config.start)

    @torch.no_grad()
    def after_step(self, momentum: float, step_taken: Tensor | None = None) -> None:
        """Move the EMA critic, whose values are the targets, towards the one that the optimizer just updated."""
        update_ema(self.target_values, self.world.values, momentum, step_taken)

    def encoders(self) -> dict[str, nn.Module]:
        return {"world": self.world}


def choose_goals(batch: Batch, states: int, goals: int) -> Int[Tensor, "B G"]:
    """Draw the states of each episode that are its goals: a function of the batch's numbers."""
    order = CounterRNG.of(0, 0, batch.index.cpu().numpy()).uniform("goals", states)
    return order.argsort(1)[:, :goals].to(batch.index.device)
