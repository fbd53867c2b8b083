"""Defaults that methods share: settings that build networks, and the networks with their objective."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Masks, MaskShape, Output, ParamGroup, Signal, StepFlops, Tokens
from openjepa.methods.next_commands import Commands, encoder_commands, world_commands
from openjepa.nn.flops import vit_flops
from openjepa.nn.vit import ViT, ViTConfig

SIGNALS = (  # docs/reference/metrics.md has the measurements behind these values
    Signal("feature_spread", "0.1 to 1", 0.01, "the encoder gives nearly the same vector for every sample", 0.1, 1.0),
    Signal("rankme", "more than 10", 2.0, "the features span only one or two dimensions", 10.0),
)


@dataclass(frozen=True)
class MethodConfig:
    """Settings of a method; a subclass adds its fields and `build(modality, seed)`, which returns the networks."""

    # whether the loss compares samples, so that a batch cannot be split into micro-batches
    whole_batch: ClassVar[bool] = False

    @property
    def needs_masks(self) -> bool:
        """Return whether the loader draws masks; a method without a masked part overrides it."""
        return True

    def build(self, modality: Any, seed: int = 0) -> BaseMethod:
        """Build the networks with freshly initialized weights; the same seed gives the same weights."""
        raise NotImplementedError

    def check(self, data: Any, masks: Any) -> None:
        """Raise UserError if these settings do not fit the data or the masks."""

    def describe(self) -> str:
        """Describe the networks in one line, for the summary of a run, reports and model cards."""
        return type(self).__name__

    def cost(self, data: Any, masks: Iterable[MaskShape]) -> StepFlops | None:
        """Return the FLOPs of a training step for one sample under these masks; None: not counted."""
        return None

    def encoder_cost(self, data: Any) -> int | None:
        """Return the FLOPs of encoding one view, forward; None: not counted."""
        return None

    def signals(self) -> tuple[Signal, ...]:
        """Return the metrics to watch for collapse."""
        return SIGNALS

    def advice(self) -> str:
        """Return what to type against collapse."""
        return "try a lower --optim.lr; see docs/reference/metrics.md"

    def teachers(self) -> dict[str, str]:
        """Return the folders of the runs whose frozen encoders the method needs, by the name of the setting."""
        return {}

    def next_commands(self, run: str, data: Any) -> Commands:
        """Return what to type next with a finished run in the folder `run`: (command, what it does)."""
        return encoder_commands(run, data)

    def build_encoder(self, modality: Any, which: str = "") -> nn.Module:
        """Build one of the encoders alone, to load weights into."""
        return self.build(modality).encoder(which)


@dataclass(frozen=True)
class UnmaskedConfig(MethodConfig):
    """Settings of a method without masks, whose networks torch's own rules initialize."""

    @property
    def needs_masks(self) -> bool:
        return False

    def networks(self, modality: Any) -> BaseMethod:
        """Build the networks with weights from torch's global generator."""
        raise NotImplementedError

    def build(self, modality: Any, seed: int = 0) -> Any:
        """Build the networks with freshly initialized weights; the same seed gives the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.networks(modality)


@dataclass(frozen=True)
class WorldConfig(UnmaskedConfig):
    """Settings of a method that trains a world model, or another module of an agent on one."""

    acts: ClassVar[bool] = False  # whether an agent can plan with what it trains

    def next_commands(self, run: str, data: Any) -> Commands:
        """Return what to type next with a finished run in the folder `run`: (command, what it does)."""
        return world_commands(run, data, self.acts)


@dataclass(frozen=True)
class ViTMethodConfig(MethodConfig):
    """Settings of a method whose encoders are Vision Transformers."""

    encoder: ViTConfig = field(default_factory=ViTConfig)

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError if these settings do not fit the data or the masks."""
        self.encoder.check(data.layout.coordinates, "--method.encoder")

    def describe(self) -> str:
        """Describe the networks in one line, for the summary of a run, reports and model cards."""
        return self.encoder.describe()

    def encoder_cost(self, data: Modality) -> int:
        """Return the FLOPs of encoding one view, forward."""
        return vit_flops(self.encoder, data, data.layout.count)

    def build_encoder(self, modality: Modality, which: str = "") -> ViT:
        """Build an encoder alone, to load weights into: it has torch's default initialization."""
        return self.encoder.build(modality.tokenizer(self.encoder.dim))


class FrozenTeacher:
    """The encoder of an earlier run, frozen, with the modality that cuts its views into tokens."""

    def __init__(self, encoder: nn.Module, modality: Any, fingerprint: str):
        self.encoder, self.modality, self.fingerprint = encoder.eval().requires_grad_(False), modality, fingerprint

    @torch.no_grad()
    def __call__(self, view: Any, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        """Encode views of its own modality."""
        return self.encoder(self.modality.tokens(view), layers=layers)


class BaseMethod(nn.Module):
    """Networks and objective of a method; a subclass writes `__init__`, `forward` and `encoders`."""

    num_views: int | tuple[int, ...] = 1  # views of each sample that the objective needs, for all streams or for each
    uses_every_weight: bool = True  # in every step; False if streams train different networks

    def __init__(self) -> None:
        super().__init__()
        self.teachers: dict[str, FrozenTeacher] = {}  # not part of the weights: loaded again when a run is resumed

    def masks(self, batch: Batch) -> tuple[Masks, ...]:
        """Return the masks of this step: those of the loader. Overridden by methods whose masks need the networks."""
        return batch.masks

    def targets(self, batch: Batch) -> Any:
        """Compute what is predicted, once for the whole batch and without gradient; None if there is nothing."""
        return None

    def forward(self, batch: Batch, targets: Any) -> Output:
        """Compute the loss of a micro-batch."""
        raise NotImplementedError

    def after_step(self, momentum: float, step_taken: Tensor | None = None) -> None:
        """Act after the optimizer step, such as updating an EMA; by default do nothing."""

    def encoders(self) -> dict[str, nn.Module]:
        """Return the encoders to export and evaluate by name; the first is the default."""
        raise NotImplementedError

    def encoder(self, which: str = "") -> nn.Module:
        """Return one of `encoders` by name, the default without a name. Raises UserError if there is no such name."""
        encoders = self.encoders()
        if which and which not in encoders:
            raise UserError(f"there is no encoder {which!r}: try --encoder {' or '.join(encoders)}")
        return encoders[which] if which else next(iter(encoders.values()))

    def param_groups(self) -> list[ParamGroup]:
        """Return all parameters that have a gradient as one group."""
        return [ParamGroup([p for p in self.parameters() if p.requires_grad])]
