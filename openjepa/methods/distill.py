"""Distill a frozen teacher of another modality in the embedding space (JEP-KD, arXiv 2403.18843).

B batch  T teacher tokens  D student width  E teacher width
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.protocols import Encoder, Modality
from openjepa.core.types import Batch, Keep, MaskShape, Output, StepFlops, Tokens
from openjepa.methods.base import BaseMethod, ViTMethodConfig
from openjepa.nn.flops import predictor_flops, vit_flops
from openjepa.nn.init import initialize
from openjepa.nn.losses import LOSSES
from openjepa.nn.positions import grid_positions
from openjepa.nn.predictor import Predictor, PredictorConfig
from openjepa.nn.target_transforms import global_mean_var

EPSILON = 1e-4  # added to the variance before targets are standardized


@dataclass(frozen=True)
class Distill(ViTMethodConfig):
    """JEP-KD: from one modality, predict the embedding that a frozen teacher has of the other.

    L = d(generator(encoder(x)), standardize(teacher(y))) + adversarial · GAN(generator(encoder(x)), teacher(y))

    for pairs (x, y) such as lips and sound. The generator is a JEPA's predictor, whose queries are the positions of the
    teacher's tokens. Encoders: `generated`, the encoder with its generator, and `student`, the encoder alone.

    Source: Sun, Yang and Qin, 2024, arXiv 2403.18843.

    Differs: the paper does not give sizes and weights; the discriminator is trained in the same step, by reversing its
    gradient.
    """

    teacher: str = ""  # folder of the run whose encoder gives the targets, on the second modality of the pairs
    predictor: PredictorConfig = field(default_factory=PredictorConfig)  # the generator
    teacher_dim: int = 0  # width of the teacher's features; 0: that of the encoder
    # grid of teacher tokens that are predicted, such as 8 12; 1: their mean
    queries: tuple[int, ...] = (1,)
    # between generated and teacher's embeddings
    loss: Literal["smooth_l1", "l1", "squared_l2", "cosine"] = "smooth_l1"
    adversarial: float = 0.0  # weight of the discriminator's loss; 0: none

    @property
    def needs_masks(self) -> bool:
        return False

    def teachers(self) -> dict[str, str]:
        """Return the folder of the teacher."""
        return {"teacher": self.teacher}

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless there are pairs, and the queries are the teacher's tokens or their mean."""
        super().check(data, masks)
        second = getattr(data, "second", None)
        if second is None:
            raise UserError("distill needs pairs of two modalities: try --modality pair")
        if self.queries not in ((1,), second.layout.shape):
            grid = " ".join(map(str, second.layout.shape or ()))
            raise UserError(f"--method.queries must be 1 (the mean) or the grid of the teacher's tokens, {grid}")
        if self.teacher_dim < 0 or self.adversarial < 0:
            raise UserError("--method.teacher-dim and --method.adversarial must be >= 0")
        self.predictor.check(data.layout.coordinates, "--method.predictor", self.encoder)

    @property
    def target_dim(self) -> int:
        """Return the width of the teacher's features."""
        return self.teacher_dim or self.encoder.dim

    def build(self, modality: Modality, seed: int = 0) -> EmbeddingDistillation:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return EmbeddingDistillation(self, modality, torch.Generator().manual_seed(seed))

    def build_predictor(self, modality: Modality) -> Predictor:
        """Build the generator alone, with torch's default initialization."""
        return self.predictor.build(replace(self.encoder, positions="sincos"), self.target_dim)

    def build_encoder(self, modality: Modality, which: str = "") -> Any:
        """Build one of the encoders alone, to load weights into."""
        student = super().build_encoder(modality)
        return student if which == "student" else Generated(student, self.build_predictor(modality), self.queries)

    def describe(self) -> str:
        """Describe the networks in one line."""
        return f"{super().describe()}; generator {self.predictor.describe()}"

    def cost(self, data: Modality, masks: Iterable[MaskShape]) -> StepFlops:
        """Return the FLOPs of one sample, without the teacher's."""
        shape = data.layout.count, 1, torch.Size(self.queries).numel()
        generator = 3 * predictor_flops(self.predictor, self.encoder.dim, self.target_dim, shape)
        return StepFlops(target=0, context=3 * vit_flops(self.encoder, data, data.layout.count), predictor=generator)


class Generated(Encoder):
    """An encoder and its generator as one encoder: its tokens are generated embeddings of the other modality."""

    same_tokens = False

    where: Tensor

    def __init__(self, student: nn.Module, generator: Predictor, queries: tuple[int, ...]):
        super().__init__()
        self.student, self.generator = student, generator
        self.dim, self.depth = generator.proj.out_features, 1
        self.register_buffer("where", grid_positions(*queries), persistent=False)

    def forward(self, tokens: Tokens, keep: Keep | None = None, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        """Encode all tokens, or groups of them, and generate the embeddings; there is one layer."""
        (context,) = self.student(tokens, keep)
        where = self.where.expand(context.x.shape[0], -1, -1)
        generated = Tokens(self.generator(context, where[:, None])[:, 0], where)
        return tuple(generated for _ in layers)


class TeacherTargets(NamedTuple):
    """What the generator has to match, computed by the teacher without gradient."""

    x: Float[Tensor, "B T E"]  # standardized over the batch


class EmbeddingDistillation(BaseMethod):
    """Networks and loss of a `Distill` config."""

    where: Tensor

    def __init__(self, config: Distill, modality: Any, generator: torch.Generator):
        super().__init__()
        self.config, self.modality, self.loss = config, modality, LOSSES[config.loss]
        student = config.build_encoder(modality, "student")
        config.encoder.initialize(student, generator, modality.token_dim)
        predictor = config.build_predictor(modality)
        config.predictor.initialize(predictor, generator)
        self.context_encoder, self.predictor = student, predictor  # named as in other methods, for --init-from
        self.register_buffer("where", grid_positions(*config.queries), persistent=False)
        self.discriminator = Discriminator(config.target_dim) if config.adversarial else None
        if self.discriminator:
            initialize(self.discriminator, generator, "scaled")

    @torch.no_grad()
    def targets(self, batch: Batch) -> TeacherTargets:
        """Encode the second modality with the teacher; standardize each feature over the global batch."""
        (tokens,) = self.teachers["teacher"](batch.views[1])
        x = tokens.x.float()
        if x.shape[-1] != self.config.target_dim:
            raise UserError(f"the teacher has features of width {x.shape[-1]}: type --method.teacher-dim {x.shape[-1]}")
        x = tokens.mean()[:, None] if self.config.queries == (1,) else x
        mean, variance = global_mean_var(x)
        return TeacherTargets((x - mean) * (variance + EPSILON).rsqrt())

    def forward(self, batch: Batch, targets: TeacherTargets) -> Output:
        """Compute the distance of generated and teacher's embeddings, and with a discriminator its loss."""
        (context,) = self.context_encoder(self.modality.tokens(batch.views[0]))
        generated = self.predictor(context, self.where.expand(len(context.x), 1, -1, -1))
        distance = self.loss(generated, targets.x[:, None])
        mean = targets.x.mean((0, 1)).expand_as(generated)
        metrics = {"relative_loss": distance.detach() / self.loss(mean, targets.x[:, None])}
        if self.discriminator:
            adversary = self.discriminator(targets.x, generated[:, 0].float())
            metrics["adversarial"] = adversary.detach()
            distance = distance + self.config.adversarial * adversary
        return Output(distance, metrics, context.mean().detach())

    def encoders(self) -> dict[str, nn.Module]:
        """Return the encoder with its generator, and the encoder alone."""
        generated = Generated(self.context_encoder, self.predictor, self.config.queries).to(self.where.device)
        return {"generated": generated, "student": self.context_encoder}


class ReverseGradient(torch.autograd.Function):
    """The identity, whose gradient is negated: what is before it learns the opposite of what is behind it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class Discriminator(nn.Module):
    """Tell the teacher's embeddings from generated ones; the generator learns to make that impossible."""

    def __init__(self, dim: int, hidden: int = 256):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, real: Float[Tensor, "B T E"], generated: Float[Tensor, "B T E"]) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of its answers. Source: GAN (Goodfellow et al., 2014)."""
        fake = ReverseGradient.apply(generated)
        return (F.softplus(-self.layers(real)).mean() + F.softplus(self.layers(fake)).mean()) / 2
