"""A world model: predict the latents of coming observations from the present one and the actions.

B batch  T steps  F = T + 1 observations  N cells of a latent (1 for a vector)  D width  A action's width
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from openjepa.core.distributed import gather_ranks
from openjepa.core.errors import UserError
from openjepa.core.types import Batch, Output
from openjepa.methods.base import BaseMethod, WorldConfig
from openjepa.nn.convnet import ConvNet, ConvNetConfig
from openjepa.nn.dynamics import GRUDynamics, LocalDynamics, MLPDynamics
from openjepa.nn.ema import update_ema
from openjepa.nn.inverse import LocalInverse, VectorInverse
from openjepa.nn.level import Level
from openjepa.nn.regularizers import covariance_loss, sigreg, variance_loss
from openjepa.nn.world import World, encode_steps

SLICES, ROWS = 64, 2048  # of SIGReg: random directions, and features of a batch that it takes at most


@dataclass(frozen=True)
class WorldModel(WorldConfig):
    """Recurrent JEPA: roll out the first latent under the actions, and match the latents of what was observed.

    z_t = encoder(x_t),  p_0 = z_0,  p_t+1 = dynamics(p_t, a_t)

    L = prediction · mean_t |p_t - z_t|² + teacher_forcing · mean_t |dynamics(z_t, a_t) - z_t+1|²
      + variance · v(z) + covariance · c(z) + sigreg · s(z) + inverse · mean_t |a_t - inverse(z_t, z_t+1)|²
      + similarity · mean_t |z_t+1 - z_t|²

    Source: LeCun 2022 for the architecture; Sobal et al., arXiv 2211.10831 and 2502.14819, for the terms.
    Differs: latents are maps whose cells are predicted from their neighbors, unless `latent` is vector.
    """

    whole_batch: ClassVar[bool] = True  # variance and covariance compare samples

    encoder: ConvNetConfig = field(default_factory=ConvNetConfig)
    dynamics: Literal["local", "mlp", "gru"] = "local"  # local needs a map, the other two a vector
    target: Literal["same", "ema"] = "same"  # encoder of the targets: the same one, with its gradient, or its EMA
    prediction: float = 40.0  # weight of the error of the roll-out
    ramp: int = 14_000  # samples over which this weight grows from a tenth
    teacher_forcing: float = 0.0  # weight of the error of one step from an observed latent
    variance: float = 16.0  # weight of the hinge that keeps each feature's standard deviation above 1
    covariance: float = 1.0  # weight of the squared covariances of features
    sigreg: float = 0.0  # weight of SIGReg, in place of variance and covariance
    inverse: float = 60.0  # weight of the error of the action that is read from two latents
    similarity: float = 0.0  # weight of the squared change of a latent within a step

    def networks(self, modality: Any) -> WorldModelNetworks:
        return WorldModelNetworks(self, modality)

    def build_parts(self, modality: Any) -> tuple[ConvNet, nn.Module]:
        """Build what a `World` consists of."""
        width, actions = self.encoder.dim, modality.action_dim
        perception = self.encoder.build(modality.tokenizer(self.encoder.hidden), modality.layout)
        if self.dynamics == "local":
            return perception, LocalDynamics(width, actions, modality.grid)
        return perception, (MLPDynamics if self.dynamics == "mlp" else GRUDynamics)(width, actions)

    def check(self, data: Any, masks: Any) -> None:
        """Raise UserError if the dynamics do not fit the latents."""
        if (self.dynamics == "local") != (self.encoder.latent == "map"):
            raise UserError(
                f"--method.dynamics {self.dynamics} does not fit --method.encoder.latent {self.encoder.latent}: "
                "local needs a map; mlp and gru need a vector"
            )

    def check_map(self) -> None:
        """Raise UserError if the latents are not maps, which locator, critic and actor read."""
        if self.encoder.latent != "map":
            raise UserError("locator, critic and actor read maps: give --method.world.encoder.latent map")

    def describe(self) -> str:
        return f"{self.encoder.describe()}; {self.dynamics} dynamics"


class WorldModelNetworks(BaseMethod):
    """A world of a `WorldModel` config, and the head that reads actions from two latents."""

    def __init__(self, config: WorldModel, modality: Any):
        super().__init__()
        self.config, self.modality = config, modality
        self.world = World(*config.build_parts(modality))
        width, actions = config.encoder.dim, modality.action_dim
        local = config.encoder.latent == "map"
        self.inverse = LocalInverse(width, actions, modality.grid) if local else VectorInverse(width, actions)
        self.target_encoder: nn.Module | None = None
        if config.target == "ema":
            self.target_encoder = copy.deepcopy(self.world.perception).requires_grad_(False)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Float[Tensor, "B T N D"] | None:
        """Encode the coming observations with the EMA encoder, if there is one."""
        return None if self.target_encoder is None else self.encode(self.target_encoder, batch.views[0])[:, 1:]

    def forward(self, batch: Batch, targets: Float[Tensor, "B T N D"] | None) -> Output:
        """Compute the loss of a batch."""
        assert batch.conditions is not None
        states = self.encode(self.world, batch.views[0])
        steps = Steps(states, batch.conditions, states[:, 1:] if targets is None else targets, batch.conditions)
        return world_loss(self.config, self.world, self.inverse, steps, batch.index)

    def encode(self, encoder: nn.Module, observations: Tensor) -> Float[Tensor, "B T N D"]:
        return encode_steps(encoder, self.modality.tokens(observations), observations.shape[1])

    @torch.no_grad()
    def after_step(self, momentum: float, step_taken: Tensor | None = None) -> None:
        """Move the target encoder, if there is one, towards the encoder that the optimizer just updated (EMA)."""
        if self.target_encoder is not None:
            update_ema(self.target_encoder, self.world.perception, momentum, step_taken)

    def encoders(self) -> dict[str, nn.Module]:
        return {"world": self.world}


class Steps(NamedTuple):
    """A trajectory in latents."""

    states: Float[Tensor, "B F N D"]
    actions: Float[Tensor, "B T A"]  # on which the dynamics depend
    targets: Float[Tensor, "B T N D"]  # of the predictions
    inferred: Float[Tensor, "B T I"]  # what inverse dynamics read from two states: the actions


def world_loss(
    config: WorldModel, world: World | Level, inverse: nn.Module, steps: Steps, index: Int[Tensor, "B"]
) -> Output:
    """Compute the loss of a world, or of a level of a hierarchy, with the weights of a config."""
    states, actions, targets, inferred = steps
    now, later = states[:, :-1].flatten(0, 1), states[:, 1:].flatten(0, 1)
    errors = (world.unroll(states[:, 0], actions) - targets).square().mean((1, 2, 3))  # B
    terms = {"prediction": (growth(config, index) * errors).mean()}
    if config.inverse:
        terms["inverse"] = F.mse_loss(inverse(now, later), inferred.flatten(0, 1))
    terms |= spread_terms(config, gather_ranks(states).flatten(0, 2), int(gather_ranks(index)[0]))
    if config.teacher_forcing:
        predicted = world.step(now, actions.flatten(0, 1))
        terms["teacher_forcing"] = F.mse_loss(predicted, targets.flatten(0, 1))
    if config.similarity:
        terms["similarity"] = F.mse_loss(later, now)
    loss = torch.stack([getattr(config, name) * term for name, term in terms.items()]).sum()
    persistence = (states[:, :1] - states[:, 1:]).square().mean()
    metrics = {name: term.detach() for name, term in terms.items()}
    metrics["relative_error"] = (errors.mean() / persistence).detach()  # of the roll-out; 1: as if nothing moved
    return Output(loss, metrics, states[:, 0].mean(1).detach())


def growth(config: WorldModel, index: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Return the part of the weight of prediction that has been reached by each sample of the run."""
    if not config.ramp:
        return torch.ones_like(index, dtype=torch.float32)
    return 0.1 + 0.9 * (index / config.ramp).clamp(max=1.0)


def spread_terms(config: WorldModel, features: Float[Tensor, "R D"], seed: int) -> dict[str, Tensor]:
    """Return the terms that keep latents from collapsing; those with weight 0 are left out."""
    terms = {}
    if config.variance:
        terms["variance"] = variance_loss(features)
    if config.covariance:
        terms["covariance"] = covariance_loss(features)
    if config.sigreg:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(features), generator=generator)[:ROWS].to(features.device)
        terms["sigreg"] = sigreg(features[rows], SLICES, generator)
    return terms
