"""An actor: a policy that does in one pass what planning with the critic finds (mode 1).

B episodes  S states of an episode  G goals of an episode  N cells  D width  P directions  L lengths of pushes
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.types import Batch, Output, Signal
from openjepa.methods.base import BaseMethod, WorldConfig
from openjepa.methods.critic import Critic, ValuedWorld, Values, choose_goals
from openjepa.nn.convnet import ConvNet
from openjepa.nn.locator import Location
from openjepa.nn.pushes import PushCache
from openjepa.nn.value_iteration import FieldReader, GoalField
from openjepa.nn.world import encode_steps


@dataclass(frozen=True)
class Actor(WorldConfig):
    """Distill the critic: predict which push leads where the goal is nearest.

    L = cross entropy of policy(s, g) and softmax(-Q(s, g) / temperature),
    Q(s, g, d) = min over lengths n of n + V(state after n pushes in direction d, g)

    Source: LeCun 2022, section 3.1.3 (from mode 2 to mode 1).
    """

    acts: ClassVar[bool] = True

    critic: Critic = field(default_factory=Critic)  # of the run whose weights this one starts from; frozen
    temperature: float = 0.35  # steps
    goals: int = 4  # of the states of an episode

    def networks(self, modality: Any) -> ActorMethod:
        return ActorMethod(self, modality)

    def check(self, data: Any, masks: Any) -> None:
        """Raise UserError if the world's latents or the critic's values are not maps."""
        self.critic.check(data, masks)
        if self.critic.values != "maps":
            raise UserError("a policy reads the maps of the critic: give --method.critic.values maps")

    def describe(self) -> str:
        return f"policy of {self.critic.describe()}"

    def signals(self) -> tuple[Signal, ...]:
        return ()


class ActingWorld(ValuedWorld):
    """A frozen world with its values, and a policy that reads the distance maps of the values."""

    def __init__(self, perception: ConvNet, dynamics: nn.Module, start: float, pushes: int):
        super().__init__(perception, dynamics, start)
        self.requires_grad_(False)
        assert isinstance(self.values, Values)
        maps, summary = self.values.value_iteration.maps, self.locator.summary_dim
        self.policy = FieldReader(maps, perception.cells, summary, pushes)

    def policy_field(self, goal: Float[Tensor, "R N D"], batch: int) -> GoalField:
        """Return what `logits` reads about R goals, as many for each of a batch of tasks."""
        assert isinstance(self.values, Values)
        where = self.locate(goal)
        return self.policy.field(self.values.value_iteration(goal, where.focus), where, batch)

    def logits(self, field: GoalField, states: Location) -> Float[Tensor, "B G R P"]:
        """Return the logits of the pushes in R states for G goals of each of B tasks; `states` has B · R rows."""
        return self.policy.read(field, states)


class ActorMethod(BaseMethod):
    """Networks and loss of an `Actor` config."""

    def __init__(self, config: Actor, modality: Any):
        super().__init__()
        self.config, self.modality = config, modality
        pushes = config.critic.pushes(modality)
        self.world = ActingWorld(*config.critic.world.build_parts(modality), config.critic.start, len(pushes))
        self.imagined = PushCache(self.world, pushes, config.critic.lengths)

    def forward(self, batch: Batch, targets: None) -> Output:
        """Compute the cross entropy for all states of an episode, with some of them as goals."""
        (frames,) = batch.views
        states = encode_steps(self.world, self.modality.tokens(frames), frames.shape[1])
        chosen = choose_goals(batch, states.shape[1], self.config.goals)  # B G
        goals = states.gather(1, chosen[..., None, None].expand(-1, -1, *states.shape[2:])).flatten(0, 1)
        costs = self.costs_of_pushes(self.imagined(frames, states), goals, len(states)).flatten(0, 2)
        field = self.world.policy_field(goals, len(states))
        logits = self.world.logits(field, self.world.locate(states.flatten(0, 1))).flatten(0, 2)
        loss = F.cross_entropy(logits, (-costs / self.config.temperature).softmax(-1))
        agreement = (logits.argmax(-1) == costs.argmin(-1)).float().mean()
        return Output(loss, {"agreement": agreement}, states[:, 0].mean(1))

    @torch.no_grad()
    def costs_of_pushes(
        self, ends: Location, goals: Float[Tensor, "BG N D"], episodes: int
    ) -> Float[Tensor, "B G S P"]:
        """Return for each push the lowest cost over its lengths: its steps, and the critic's value of where it ends."""
        critic = self.config.critic
        field = self.world.value_field(goals, episodes)
        values = self.world.values(field, ends).unflatten(2, (-1, critic.directions, len(critic.lengths)))
        return (values + values.new_tensor(critic.lengths)).amin(-1)

    def encoders(self) -> dict[str, nn.Module]:
        return {"world": self.world}
