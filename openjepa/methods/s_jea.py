"""S-JEA: stacked joint embedding, a second encoder on the embedding of the first (arXiv 2305.11701).

B batch  N tokens  D encoder width  E embedding width
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.distributed import gather_ranks
from openjepa.core.errors import UserError
from openjepa.core.protocols import Encoder, Modality
from openjepa.core.types import Batch, Keep, MaskShape, Output, StepFlops, Tokens
from openjepa.methods.views import JointViews, ViewsConfig
from openjepa.nn.expander import Expander, ExpanderConfig
from openjepa.nn.flops import transformer_flops
from openjepa.nn.init import initialize
from openjepa.nn.positions import grid_positions
from openjepa.nn.regularizers import vicreg_terms
from openjepa.nn.stems import PatchEmbed
from openjepa.nn.vit import ViT, ViTConfig

SIDE, PATCH = 16, 4  # the embedding becomes an image of 16×16 values with one channel, in patches of 4×4


@dataclass(frozen=True)
class SJEA(ViewsConfig):
    """S-JEA: joint embedding at two levels; level 2 encodes what level 1 embeds, as a small image.

    L = VICReg(z1, z1') + VICReg(z2, z2'), with z1 = expander1(encoder1(view)), z2 = expander2(encoder2(z1 as 16×16))

    Gradients of level 2 also train level 1. There is no mask, no predictor and no EMA.

    Source: Manova et al., 2023, arXiv 2305.11701, section 3; the terms as in VICReg, arXiv 2105.04906.

    Differs: Vision Transformers in place of ResNet-18; level 2 has an expander, where the official code compares the
    1,000 outputs of the ResNet's own last layer.
    """

    keeps_expander: ClassVar[bool] = True  # level 2 encodes its output

    expander: ExpanderConfig = field(default_factory=lambda: ExpanderConfig(256, 3, SIDE**2))
    level2: ViTConfig = field(default_factory=lambda: ViTConfig(dim=192, depth=3, num_heads=3))
    detach: bool = False  # whether gradients of level 2 stop before level 1
    invariance: float = 25.0  # weight of the squared distance between the two views; 25 as in the paper
    variance: float = 25.0  # weight of the hinge that keeps each feature's std above 1; 25 as in the paper
    covariance: float = 1.0  # weight of the squared off-diagonal covariances; 1 as in the paper

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the networks fit the data, and each other."""
        super().check(data, masks)
        self.level2.check(2, "--method.level2")
        *_, width = self.expander.widths(self.encoder.dim)
        if width != SIDE**2:
            raise UserError(
                f"the embedding of level 1 must have {SIDE**2} values, the pixels of level 2, got {width}: "
                f"try --method.expander.output-dim {SIDE**2}"
            )

    def build(self, modality: Modality, seed: int = 0) -> StackedEmbedding:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return StackedEmbedding(self, modality, torch.Generator().manual_seed(seed))

    def pools(self, modality: Any) -> bool:
        """Return False: level 2 takes the mean over the tokens of level 1."""
        return False

    def build_encoder(self, modality: Modality, which: str = "") -> Any:
        """Build one of the encoders alone, to load weights into."""
        level1 = super().build_encoder(modality)
        if which != "level2":
            return level1
        return Stack(level1, Expander(self.encoder.dim, self.expander, running_stats=True), self.build_level2())

    def build_level2(self) -> ViT:
        """Build the Vision Transformer of level 2 with torch's default initialization."""
        return self.level2.build(PatchEmbed(1, PATCH, self.level2.dim))

    def describe(self) -> str:
        """Describe the networks in one line."""
        return f"{super().describe()}; level 2: {self.level2.describe()}"

    def cost(self, data: Modality, masks: Iterable[MaskShape]) -> StepFlops:
        """Return the FLOPs of one sample, whose views are all encoded at both levels."""
        cost, tokens = super().cost(data, masks), (SIDE // PATCH) ** 2
        level2 = transformer_flops(self.level2.depth, self.level2.dim, tokens) + self.expander.flops(self.level2.dim)
        return cost._replace(predictor=cost.predictor + self.num_views * 3 * level2)


class Stack(Encoder):
    """Both levels as one encoder of views; its tokens are patches of the embedding of level 1."""

    same_tokens = False

    def __init__(self, level1: Encoder, expander: Expander, level2: ViT):
        super().__init__()
        self.level1, self.expander, self.level2 = level1, expander, level2
        self.dim, self.depth = level2.dim, level2.depth

    def forward(self, tokens: Tokens, keep: Keep | None = None, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        """Encode all tokens, or groups of them, by level 1 and its embedding by level 2."""
        (features,) = self.level1(tokens, keep)
        return self.level2(embedding_tokens(self.expander(features.mean())), layers=layers)


def embedding_tokens(z: Float[Tensor, "B E"]) -> Tokens:
    """Cut embeddings, as images of 16×16 values with one channel, into patches."""
    cells, batch = SIDE // PATCH, z.shape[0]  # len(z) would fix the batch size of an exported program
    patches = z.float().view(batch, cells, PATCH, cells, PATCH).transpose(2, 3).reshape(batch, cells**2, PATCH**2)
    return Tokens(patches, grid_positions(cells, cells).to(z.device).expand(batch, -1, -1))


class StackedEmbedding(JointViews):
    """Networks and loss of an `SJEA` config."""

    def __init__(self, config: SJEA, modality: Modality, generator: torch.Generator):
        super().__init__(config, modality, generator)
        self.config = config
        self.level2 = config.build_level2()
        self.expander2 = Expander(config.level2.dim, config.expander)
        config.level2.initialize(self.level2, generator, PATCH**2)
        initialize(self.expander2, generator, config.level2.init)

    def forward(self, batch: Batch, targets: None) -> Output:
        """Compute VICReg's loss at both levels, over the whole batch also on several ranks."""
        features = [self.encode(batch, number) for number in range(len(batch.views))]
        z1 = [self.predictor(gather_ranks(x)).float() for x in features]
        below = [z.detach() if self.config.detach else z for z in z1]
        z2 = [self.expander2(self.level2(embedding_tokens(z))[0].mean()).float() for z in below]
        levels = vicreg_terms(*z1), vicreg_terms(*z2)
        weights = self.config.invariance, self.config.variance, self.config.covariance
        losses = [sum(weight * term for weight, term in zip(weights, terms, strict=True)) for terms in levels]
        names = [f"{name}_{level}" for level in (1, 2) for name in levels[0]._fields]
        metrics = {name: term.detach() for name, term in zip(names, [*levels[0], *levels[1]], strict=True)}
        return Output(torch.stack(losses).sum(), metrics, features[0].detach())  # type: ignore[arg-type]

    def encoders(self) -> dict[str, nn.Module]:
        """Return the encoder of level 1, and that of both levels."""
        stack = Stack(self.context_encoder, self.predictor, self.level2)
        return {"level1": self.context_encoder, "level2": stack}
