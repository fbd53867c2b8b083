"""Defaults that methods share: settings that build networks, and the networks with their objective."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.types import Batch, Masks, MaskShape, Output, ParamGroup, Signal, StepFlops, Tokens
from openjepa.nn.positions import rope_frequency_count, sincos_frequency_count

SIGNALS = (  # docs/health.md has the measurements behind these values
    Signal("feature_spread", "0.1 to 1", 0.01, "the encoder gives nearly the same vector for every sample", 0.1, 1.0),
    Signal("rankme", "more than 10", 2.0, "the features span only one or two dimensions", 10.0),
)


@dataclass(frozen=True)
class MethodConfig:
    """Settings of a method; a subclass adds its fields and `build(modality, seed)`, which returns the networks."""

    # whether the loss compares samples, so that a batch cannot be split into micro-batches
    whole_batch: ClassVar[bool] = False

    def build(self, modality: Any, seed: int = 0) -> BaseMethod:
        """Build the networks with freshly initialized weights; the same seed gives the same weights."""
        raise NotImplementedError

    def check(self, data: Any, masks: Any) -> None:
        """Raise UserError if these settings do not fit the data or the masks."""
        check_widths(self, data.layout.coordinates)

    def cost(self, data: Any, masks: Iterable[MaskShape]) -> StepFlops | None:
        """Return the FLOPs of one sample under these masks; None: not counted."""
        return None

    def signals(self) -> tuple[Signal, ...]:
        """Return the metrics to watch for collapse."""
        return SIGNALS

    def advice(self) -> str:
        """Return what to type against collapse."""
        return "try a lower --optim.lr; see docs/health.md"

    def teachers(self) -> dict[str, str]:
        """Return the folders of the runs whose frozen encoders the method needs, by the name of the setting."""
        return {}

    def build_encoder(self, modality: Any, which: str = "") -> nn.Module:
        """Build one of the encoders alone, to load weights into."""
        return self.build(modality).encoder(which)


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


def check_widths(method: Any, coordinates: int) -> None:
    """Raise UserError unless the widths of encoder and predictor divide into their heads."""
    if hasattr(method, "num_heads"):
        heads = method.predictor_heads or method.num_heads
        check_heads("--method.dim", method.dim, method.num_heads, method.positions, coordinates)
        check_heads("--method.predictor-dim", method.predictor_dim, heads, method.positions, coordinates)


def check_heads(flag: str, dim: int, heads: int, positions: str, coordinates: int) -> None:
    """Raise UserError unless the width divides into heads, and a rotary head into coordinates."""
    if dim % heads:
        unit = math.lcm(heads, 2 * coordinates)  # of sine-cosine positions: a sine and a cosine per coordinate
        raise UserError(
            f"{flag} must be a multiple of its {heads} attention heads, got {dim}: "
            f"try {flag} {dim // unit * unit or unit}"
        )
    if positions == "rope":
        rope_frequency_count(dim // heads, coordinates)
    else:
        sincos_frequency_count(dim, coordinates)
