"""Image world model: predict the features of a transformed image, given the transform (IWM, arXiv 2403.00504).

B batch  C channels  H height  W width  A parameters of an action
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Output
from openjepa.data.photometric import NAMES, PhotometricConfig, difference, transform
from openjepa.masking.stack import stack_masks
from openjepa.methods.masked import MaskedConfig, MaskedPrediction, Targets, compare, masked_output
from openjepa.methods.next_commands import Commands, imagination_commands
from openjepa.nn.conditioning import Conditioning, build_conditioner
from openjepa.nn.losses import mean_squared_error
from openjepa.nn.predictor import Predictor


@dataclass(frozen=True)
class IWM(MaskedConfig):
    """IWM: predict the features of a target view from the visible part of a source view and the action between them.

    L = mean over hidden tokens of (predictor(encoder(x visible), positions, a) - LayerNorm(ema_encoder(y)))²

    x and y share the crop. y has other colors; x has other colors and may be gray, blurred or solarized. The action a
    has the difference of each color parameter, y minus x, and a 1 for each transform that destroyed information of x.

    Source: Garrido et al., 2024, arXiv 2403.00504, section 3.

    Differs: transforms have a fixed order, and the blur a fixed width of one pixel.
    """

    # how the predictor learns the action. feature: concatenated to each query, then an MLP (paper); sequence: a token
    # for each parameter; none: not at all, which gives an encoder that ignores the transforms
    conditioning: Conditioning = "feature"
    transforms: PhotometricConfig = field(default_factory=PhotometricConfig)

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the data are color images, and the networks fit them."""
        super().check(data, masks)
        if getattr(data, "channels", 0) != 3 or len(data.layout.shape or ()) != 2:
            raise UserError("iwm changes colors, so it requires images with 3 channels: try --method jepa")

    def next_commands(self, run: str, data: Any) -> Commands:
        """Return what to type next with a finished run."""
        return imagination_commands(run, data)

    def build(self, modality: Modality, seed: int = 0) -> ImageWorldModel:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return ImageWorldModel(self, modality, seed)

    def build_predictor(self, modality: Modality) -> Predictor:
        """Build the predictor alone, with torch's default initialization."""
        conditioner = build_conditioner(self.conditioning, self.encoder.dim, self.predictor.dim, len(NAMES))
        return self.predictor.build(self.encoder, self.output_dim(modality), conditioner)

    def describe(self) -> str:
        """Describe the networks and the targets in one line."""
        return f"{super().describe()}; conditioning {self.conditioning}"


class Views(NamedTuple):
    """Source and target view of each sample, and the action from one to the other."""

    source: Real[Tensor, "B C H W"]
    target: Real[Tensor, "B C H W"]
    action: Float[Tensor, "B A"]


class ImageWorldModel(MaskedPrediction):
    """Networks and loss of an `IWM` config: the predictor is the world model, and is kept."""

    def __init__(self, config: IWM, modality: Modality, seed: int):
        super().__init__(config, modality, torch.Generator().manual_seed(seed))
        self.config, self.seed = config, seed

    def views(self, batch: Batch) -> Views:
        """Transform the crop of each sample twice: a function of the seed and of the sample's index in the run."""
        (crop,) = batch.views
        rng = CounterRNG.of(self.seed, 0, batch.index.cpu().numpy())
        source = self.config.transforms.draw(rng, "source", destructive=True)
        target = self.config.transforms.draw(rng, "target", destructive=False)
        action = difference(source, target).to(crop.device)
        return Views(transform(crop, source), transform(crop, target), action)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Encode the whole target view with the EMA encoder and normalize the features."""
        return self.encode_targets(self.views(batch).target)

    def forward(self, batch: Batch, targets: Targets) -> Output:
        """Compute the loss of predicting the hidden tokens of the target view (paper, section 3.1)."""
        views = self.views(batch)
        tokens = self.modality.tokens(views.source)
        losses = []
        for masked in stack_masks(tokens, targets.x, batch.masks):
            (context,) = self.context_encoder(tokens, masked.keep)
            action = views.action.repeat_interleave(len(masked.mask_sets), 0)
            predicted = self.predictor(context, masked.where, action, masked.valid, masked.mask_sets)
            losses.append(compare(mean_squared_error, predicted, masked))
        return masked_output(losses, targets)
