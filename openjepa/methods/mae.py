"""Masked autoencoder: what is hidden is predicted as pixels (He et al., CVPR 2022, arXiv 2111.06377). JEPA's opponent.

B batch  N tokens  E width of a raw token  D width
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.protocols import Modality
from openjepa.core.types import Batch, Masks, Output
from openjepa.masking.stack import stack_masks
from openjepa.nn.init import Init, initialize, scale_stem
from openjepa.nn.positions import Positions
from openjepa.nn.predictor import Predictor
from openjepa.nn.target_transforms import normalize_patches
from openjepa.nn.vit import ViT


class Targets(NamedTuple):
    """What is asked for."""

    x: Float[Tensor, "B N E"]


@dataclass(frozen=True)
class MAE:
    """The networks and the objective. The paper hides 75 % at random: Masking(sampler="random", hidden=0.75).

    The decoder is our predictor: queries at hidden places beside what the encoder made of the rest. Differs: no class
    token, and what is decoded are the hidden places alone.
    """

    whole_batch: ClassVar[bool] = False  # whether the loss is more than a mean over samples

    dim: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float = 4.0
    predictor_dim: int = 512
    predictor_depth: int = 8
    predictor_heads: int = 0  # 0: as many as the encoder
    positions: Positions = "sincos"  # as in JEPA
    registers: int = 0  # as in JEPA
    init: Init = "paper"  # as in JEPA
    stem_init: Literal["paper", "scaled"] = "paper"  # as in JEPA
    normalize_targets: bool = True  # each patch to mean 0, variance 1 (the paper's better variant)

    def build(self, modality: Modality, seed: int = 0) -> MaskedAutoencoder:
        """The method with freshly initialised weights; a function of the seed."""
        return MaskedAutoencoder(self, modality, torch.Generator().manual_seed(seed))

    def encoder(self, modality: Modality) -> ViT:
        """The encoder alone, its weights as torch makes them: to be loaded."""
        shape = self.dim, self.depth, self.num_heads, self.mlp_ratio, self.positions, self.registers
        return ViT(modality.tokenizer(self.dim), *shape)


class MaskedAutoencoder(nn.Module):
    """An encoder of what is shown and a decoder of what is hidden; there is no second encoder."""

    num_views = 1

    def __init__(self, config: MAE, modality: Modality, generator: torch.Generator):
        super().__init__()
        self.config, self.modality = config, modality
        self.context_encoder = config.encoder(modality)
        sizes = config.predictor_dim, config.predictor_depth, config.predictor_heads or config.num_heads
        self.predictor = Predictor(config.dim, modality.token_dim, *sizes, positions=config.positions)
        initialize(self.context_encoder, generator, config.init)
        initialize(self.predictor, generator, config.init)
        if config.stem_init == "scaled":
            scale_stem(self.context_encoder.patch_embed, modality.token_dim)

    @torch.no_grad()
    def targets(self, batch: Batch, masks: tuple[Masks, ...]) -> Targets:
        """The raw tokens themselves."""
        x = self.modality.tokens(batch.views[0]).x.float()
        return Targets(normalize_patches(x) if self.config.normalize_targets else x)

    def forward(self, batch: Batch, masks: tuple[Masks, ...], targets: Targets) -> Output:
        """Mean squared error on what is hidden (paper, section 3)."""
        tokens = self.modality.tokens(batch.views[0])
        losses, references, features = [], [], []
        for each in stack_masks(tokens, targets.x, masks):
            (context,) = self.context_encoder(each.context)
            predicted = self.predictor(context, where=each.where)
            losses.append(F.mse_loss(predicted.float(), each.targets))
            references.append(F.mse_loss(each.targets.mean((0, 1, 2)).expand_as(each.targets), each.targets))
            features.append(context.mean().detach().unflatten(0, (len(batch.index), -1))[:, 0])  # of the first mask
        loss, reference = torch.stack(losses).mean(), torch.stack(references).mean()
        metrics = {"mean_target_loss": reference, "relative_loss": loss.detach() / reference}
        return Output(loss, metrics, features[0])

    def after_step(self, momentum: float, taken: Tensor | None = None) -> None:
        """Nothing follows."""

    def encoder(self, which: str = "target") -> ViT:
        """The one encoder, by either name."""
        return self.context_encoder
