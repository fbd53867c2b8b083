"""Joint embedding of the views of an image: what VICReg and the methods like it share.   B batch  D encoder width"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.capabilities import Pools
from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, MaskShape, StepFlops
from openjepa.methods.base import BaseMethod, MethodConfig, ViTMethodConfig
from openjepa.nn.expander import Expander, ExpanderConfig
from openjepa.nn.flops import vit_flops
from openjepa.nn.init import initialize
from openjepa.nn.vit import ViTConfig


@dataclass(frozen=True)
class JointConfig(MethodConfig):
    """Settings of the expander and of what the encoder sees of each view; a subclass has the encoder."""

    whole_batch: ClassVar[bool] = True  # the loss compares samples, so a batch cannot be split into micro-batches
    keeps_expander: ClassVar[bool] = False  # whether the expander is a part of an encoder, and not discarded

    encoder: Any = None  # sizes of the encoder, with its width `dim`
    expander: ExpanderConfig = field(default_factory=ExpanderConfig)
    masked: bool = False  # encode only the context tokens of a mask of each view: faster, and a harder task

    @property
    def num_views(self) -> int:
        return 2

    @property
    def needs_masks(self) -> bool:
        return self.masked

    def pools(self, modality: Any) -> bool:
        """Return whether the modality pools the tokens of a view; of some context tokens, the mean is taken."""
        return isinstance(modality, Pools) and not self.masked

    def feature_dim(self, modality: Any) -> int:
        """Return the width of the features that go into the expander."""
        return modality.pooled_dim(self.encoder.dim) if self.pools(modality) else self.encoder.dim

    def initialize(self, method: JointViews, generator: torch.Generator) -> None:
        """Give the networks their first weights."""
        raise NotImplementedError

    def describe(self) -> str:
        """Describe the networks in one line."""
        return f"{self.encoder.describe()}; expander {self.expander.dim}×{self.expander.depth}"

    def cost(self, data: Modality, masks: Iterable[MaskShape]) -> StepFlops:
        """Return the FLOPs of one sample, whose views are all encoded."""
        encoder, expander = self.view_cost(data, masks), self.expander.flops(self.feature_dim(data))
        return StepFlops(target=0, context=self.num_views * 3 * encoder, predictor=self.num_views * 3 * expander)

    def view_cost(self, data: Any, masks: Iterable[MaskShape]) -> int:
        """Return the forward FLOPs of encoding what is visible of a view."""
        raise NotImplementedError


@dataclass(frozen=True)
class ViewsConfig(JointConfig, ViTMethodConfig):
    """Settings of joint embedding with a Vision Transformer."""

    encoder: ViTConfig = field(default_factory=ViTConfig)

    def initialize(self, method: JointViews, generator: torch.Generator) -> None:
        self.encoder.initialize(method.context_encoder, generator, method.modality.token_dim)
        initialize(method.predictor, generator, self.encoder.init)

    def view_cost(self, data: Any, masks: Iterable[MaskShape]) -> int:
        tokens = next(iter(masks))[0] if self.masked else data.layout.count
        return vit_flops(self.encoder, data, tokens)


class JointViews(BaseMethod):
    """One encoder and an expander; a subclass has the loss."""

    def __init__(self, config: JointConfig, modality: Modality, generator: torch.Generator):
        super().__init__()
        self.modality, self.masked, self.num_views = modality, config.masked, config.num_views
        self.context_encoder: Any = config.build_encoder(modality)
        self.pool = modality.pool if isinstance(modality, Pools) and config.pools(modality) else None
        width = config.feature_dim(modality)
        self.predictor = Expander(width, config.expander, running_stats=config.keeps_expander)
        config.initialize(self, generator)

    def encode(self, batch: Batch, number: int) -> Float[Tensor, "B D"]:
        """Return the pooled features of a view; if `masked`, of its context tokens, each view with its own mask."""
        keep = batch.masks[number % len(batch.masks)].keep_context() if self.masked else None
        (tokens,) = self.context_encoder(self.modality.tokens(batch.views[number]), keep)
        return self.pool(tokens.x.float()) if self.pool else tokens.mean()

    def encoders(self) -> dict[str, nn.Module]:
        return {"context": self.context_encoder}
