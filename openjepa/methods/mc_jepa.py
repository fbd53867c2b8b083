"""MC-JEPA: motion and content from one convolutional pyramid (Bardes et al., 2023, arXiv 2307.12698).

B pairs  C channels  H W pixels or cells  R cells of a batch
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Real
from torch import Tensor, nn

from openjepa.core.distributed import gather_ranks, rank_and_size
from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Output, gather
from openjepa.methods.base import BaseMethod, MethodConfig
from openjepa.nn.expander import Expander, ExpanderConfig
from openjepa.nn.flow_losses import photometric, smoothness
from openjepa.nn.flow_network import FlowNetwork
from openjepa.nn.init import initialize, initialize_convolutions
from openjepa.nn.pyramid import Pyramid, PyramidConfig
from openjepa.nn.regularizers import covariance_loss, variance_loss, vicreg_terms
from openjepa.nn.warp import resize_flow, stays_inside, warp

ROWS = 2048  # cells of a level, of the whole batch, that the variance and covariance terms take at most


@dataclass(frozen=True)
class MCJEPA(MethodConfig):
    """MC-JEPA: predict the features of a frame by warping those of the next one, and learn content from two views.

    At each level of the pyramid, with features X1, X2 of two frames and flows f (1 → 2), b (2 → 1):

    L_motion = |X1 - warp(X2, f)|² + photometric(I1, warp(I2, f)) + smoothness(f) + |X1 - warp(warp(X1, b), f)|²
             + variance and covariance of X1;   L_content = VICReg of two views;   both directions of motion

    The flow is the latent variable of this JEPA: the predictor infers it from both frames. Streams of batches
    alternate: the run's own data give content, every other stream gives motion.

    Source: Bardes et al., 2023, arXiv 2307.12698, section 3.

    Differs: a small pyramid; all levels have the same weights, which the paper sets level by level.
    """

    whole_batch: ClassVar[bool] = True  # variance and covariance compare samples

    encoder: PyramidConfig = field(default_factory=PyramidConfig)
    expander: ExpanderConfig = field(default_factory=lambda: ExpanderConfig(dim=512))
    content_stream: int = 0  # number of the stream that gives content, 0: the run's own data; -1: none
    motion: float = 1.0  # weight of L_motion
    content: float = 0.1  # weight of L_content, whose terms have VICReg's weights 25, 25 and 1
    regression: float = 1.0  # weights of the terms of L_motion
    photometric: float = 10.0
    smoothness: float = 1.0
    cycle: float = 0.2
    variance: float = 1.0
    covariance: float = 0.04

    @property
    def needs_masks(self) -> bool:
        return False

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the data are pairs of images whose patches are cells of the coarsest level."""
        if not hasattr(data, "pairs"):
            raise UserError("mc-jepa learns from pairs of images: add --modality image-pair")
        self.encoder.check(data.patch, "--method.encoder")  # type: ignore[attr-defined]

    def build(self, modality: Modality, seed: int = 0) -> MotionContent:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return MotionContent(self, modality, seed)

    def build_encoder(self, modality: Modality, which: str = "") -> Pyramid:
        """Build the encoder alone, to load weights into: it has torch's default initialization."""
        return self.encoder.build(modality)

    def describe(self) -> str:
        """Describe the networks in one line."""
        return f"{self.encoder.describe()}; a flow network at each level"


class MotionContent(BaseMethod):
    """Networks and losses of an `MCJEPA` config: the pyramid, the flow network, and VICReg's expander."""

    uses_every_weight = False  # content leaves out the flow network, motion the expander

    def __init__(self, config: MCJEPA, modality: Any, seed: int):
        super().__init__()
        self.config, self.modality, self.seed = config, modality, seed
        generator = torch.Generator().manual_seed(seed)
        self.pyramid = config.build_encoder(modality)
        self.flow_network = FlowNetwork(config.encoder.widths)
        self.expander = Expander(config.encoder.dim, config.expander)
        initialize_convolutions(self.pyramid, generator)
        initialize_convolutions(self.flow_network, generator)
        for level in self.flow_network.levels:  # at first nothing moves
            nn.init.zeros_(level.out.weight)  # type: ignore[union-attr, arg-type]
        initialize(self.expander, generator, "scaled")

    def forward(self, batch: Batch, targets: None) -> Output:
        """Compute the loss of the stream that the batch comes from."""
        pairs = batch.views[0]
        is_content = batch.stream == self.config.content_stream
        return self.learn_content(pairs) if is_content else self.learn_motion(pairs, batch.index)

    def learn_content(self, pairs: Real[Tensor, "B 2 C H W"]) -> Output:
        """Compute VICReg's loss of two views, over the whole batch also on several ranks."""
        features = [self.pyramid.levels(self.modality.normalize(view))[-1].mean((2, 3)) for view in pairs.unbind(1)]
        terms = vicreg_terms(*(self.expander(gather_ranks(x)).float() for x in features))
        loss = 25 * terms.invariance + 25 * terms.variance + terms.covariance
        metrics = {f"content_{name}": term.detach() for name, term in terms._asdict().items()}
        return Output(self.config.content * loss, metrics, features[0].detach().float())

    def learn_motion(self, pairs: Real[Tensor, "B 2 C H W"], index: Int[Tensor, "B"]) -> Output:
        """Compute the terms of motion, in both directions and averaged over levels."""
        images = [frame.float() / 255 for frame in pairs.unbind(1)]
        levels = [self.pyramid.levels(self.modality.normalize(frame)) for frame in pairs.unbind(1)]
        flows = [self.flow_network(*levels), self.flow_network(*reversed(levels))]
        terms: dict[str, list[Tensor]] = {}
        for number in range(len(flows[0])):
            for one, other in ((0, 1), (1, 0)):
                values = self.motion_terms(
                    levels[one][number].float(), levels[other][number].float(),
                    images[one], images[other], flows[one][number], flows[other][number], index,
                )  # fmt: skip
                for name, value in values.items():
                    terms.setdefault(name, []).append(value)
        means = {name: torch.stack(values).mean() for name, values in terms.items()}
        loss = torch.stack([getattr(self.config, name) * value for name, value in means.items()]).sum()
        metrics = {name: value.detach() for name, value in means.items()}
        metrics["flow_length"] = flows[0][0].detach().norm(dim=1).mean()
        return Output(self.config.motion * loss, metrics, levels[0][-1].detach().float().mean((2, 3)))

    def motion_terms(
        self,
        x1: Float[Tensor, "B C h w"],
        x2: Float[Tensor, "B C h w"],
        image1: Float[Tensor, "B c H W"],
        image2: Float[Tensor, "B c H W"],
        flow: Float[Tensor, "B 2 h w"],
        back: Float[Tensor, "B 2 h w"],
        index: Int[Tensor, "B"],
    ) -> dict[str, Tensor]:
        """Compute each term of one level and one direction."""
        inside, size = stays_inside(flow), (x1.shape[2], x1.shape[3])
        small1, small2 = (F.adaptive_avg_pool2d(image, size) for image in (image1, image2))
        there_and_back = warp(warp(x1, back), flow)
        cells = self.choose_cells(x1, index)
        return {
            "regression": ((x1 - warp(x2, flow)).square() * inside).mean(),
            "photometric": photometric(small1, warp(small2, flow), inside),
            "smoothness": smoothness(flow, small1),
            "cycle": ((x1 - there_and_back).square() * inside).mean(),
            "variance": variance_loss(cells),
            "covariance": covariance_loss(cells),
        }

    def choose_cells(self, x: Float[Tensor, "B C h w"], index: Int[Tensor, "B"]) -> Float[Tensor, "R C"]:
        """Return some cells of every sample of the whole batch; the same ones for any number of ranks."""
        count = x.shape[2] * x.shape[3]
        limit = min(count, max(1, ROWS // (len(x) * rank_and_size()[1])))
        order = CounterRNG.of(self.seed, 0, index.cpu().numpy()).uniform("cells", count).argsort(1)[:, :limit]
        return gather_ranks(gather(x.flatten(2).mT, order.to(x.device)).flatten(0, 1))

    @torch.no_grad()
    def estimate_flow(
        self, first: Real[Tensor, "B C H W"], second: Real[Tensor, "B C H W"]
    ) -> Float[Tensor, "B 2 H W"]:
        """Return the flow from the first to the second frame, in pixels."""
        levels = [self.pyramid.levels(self.modality.normalize(frame)) for frame in (first, second)]
        return resize_flow(self.flow_network(*levels)[0], (first.shape[2], first.shape[3]))

    def encoders(self) -> dict[str, nn.Module]:
        return {"pyramid": self.pyramid}
