"""Masked JEPA with a hidden variable: one prediction for each of several futures (LeCun, 2022, section 4).

B batch  R contexts: pairs of a sample and a mask  M target blocks  T tokens per block  D width  Z width of z
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.protocols import Modality
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, MaskShape, Output, Signal, StepFlops, Tokens
from openjepa.masking.stack import MaskedBatch, stack_masks
from openjepa.methods.masked import LossPair, MaskedConfig, MaskedPrediction, Targets, compare, masked_output
from openjepa.nn.conditioning import FeatureConditioner
from openjepa.nn.latent import LatentConfig
from openjepa.nn.losses import mean_squared_error
from openjepa.nn.predictor import Predictor

OTHER_ENERGY = Signal(
    "other_energy", "above 0.4", 0.2, "z explains the targets of other samples as well", 0.4,
    problem="the hidden variable carries everything",
)  # fmt: skip


@dataclass(frozen=True)
class LatentJEPA(MaskedConfig):
    """JEPA with a hidden variable z: what the context does not tell is inferred, and the rest is predicted.

    E(x, y, z) = mean |predictor(encoder(x visible), positions, z) - LayerNorm(ema_encoder(x))[hidden]|²
    L = E(x, y, z*),  z* = argmin over z of E(x, y, z) + R(z)

    Without z, a prediction of two possible futures is their mean. If z carries everything, any y is explained, and the
    context is of no use. Metrics tell: `free_energy` F(x, y) = E(x, y, z*) + R(z*), `other_energy` F(x, y') for the y'
    of another sample, and `energy_gap` F(x, y') - F(x, y), all as a share of the targets' variance.

    Source: LeCun, 2022, sections 4.1 to 4.5.
    """

    latent: LatentConfig = field(default_factory=LatentConfig)
    # share of predictions that are trained with no z, or with any code, so that no code dies
    other_z: float = 0.05

    def check(self, data: Modality, masks: Any) -> None:
        """Raise UserError unless the networks fit the data and z has a size."""
        super().check(data, masks)
        self.latent.check("--method.latent")

    def build(self, modality: Modality, seed: int = 0) -> LatentPrediction:
        """Build the method with freshly initialized weights; the same seed gives the same weights."""
        return LatentPrediction(self, modality, seed)

    def build_predictor(self, modality: Modality) -> Predictor:
        """Build the predictor alone, with torch's default initialization."""
        conditioner = FeatureConditioner(self.predictor.dim, self.latent.size)
        return self.predictor.build(self.encoder, self.target_dim, conditioner)

    def signals(self) -> tuple[Signal, ...]:
        """Return the metrics to watch: those of collapse, and whether z carries everything."""
        return (*super().signals(), OTHER_ENERGY)

    def advice(self) -> str:
        """Return what to type against collapse, or a z that carries everything."""
        if self.latent.kind == "codes":
            limit = f"--method.latent.size {max(1, self.latent.size // 2)}"
        else:
            weight = 10 * self.latent.weight or 0.01
            limit = f"--method.latent.weight {weight:g} or --method.latent.size {max(1, self.latent.size // 4)}"
        return f"limit z by {limit}; against collapse {super().advice()}"

    def describe(self) -> str:
        """Describe the networks and z in one line."""
        return f"{super().describe()}; z: {self.latent.size} {'codes' if self.latent.kind == 'codes' else 'values'}"

    def cost(self, data: Modality, masks: Iterable[MaskShape]) -> StepFlops | None:
        """Return None: how often the predictor runs depends on how z is inferred."""
        return None


class Prediction(NamedTuple):
    """What is needed to predict with any z: the context, and the hidden tokens."""

    context: Tokens
    masked: MaskedBatch


class LatentPrediction(MaskedPrediction):
    """Networks and loss of a `LatentJEPA` config."""

    def __init__(self, config: LatentJEPA, modality: Modality, seed: int):
        super().__init__(config, modality, torch.Generator().manual_seed(seed))
        self.config, self.seed = config, seed

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Encode the whole sample with the EMA encoder and normalize the features."""
        return self.encode_targets(batch.views[0])

    def forward(self, batch: Batch, targets: Targets) -> Output:
        """Compute the energy of the targets at the best z (section 4.4), and of those of other samples."""
        tokens, index = self.modality.tokens(batch.views[0]), batch.index.cpu().numpy()
        losses: list[LossPair] = []
        free: list[Tensor] = []  # F of the own targets, and of those of another sample
        for masked in stack_masks(tokens, targets.x, batch.masks):
            (context,) = self.context_encoder(tokens, masked.keep)
            masks = len(masked.mask_sets)
            fixed = Prediction(context._replace(x=context.x.detach()), masked)
            z, own = self.infer(fixed)
            z = self.config.latent.perturb(z, self.config.other_z, CounterRNG.of(self.seed, 0, index.repeat(masks)))
            losses.append(compare(mean_squared_error, self.predict(Prediction(context, masked), z), masked))
            _, others = self.infer(fixed._replace(masked=masked._replace(targets=masked.targets.roll(masks, 0))))
            free.append(torch.stack([own.mean(), others.mean()]))
        output = masked_output(losses, targets)
        own, others = torch.stack(free).mean(0) / output.metrics["mean_target_loss"]
        energies = {"free_energy": own, "other_energy": others, "energy_gap": others - own}
        return output._replace(metrics=output.metrics | energies)

    def infer(self, given: Prediction) -> tuple[Float[Tensor, "R Z"], Float[Tensor, "R"]]:
        """Return the z that explains the targets best, and the free energy F, both without a gradient."""
        latent, (rows, *_), device = self.config.latent, given.context.x.shape, given.context.x.device
        z = latent.infer(lambda z: self.energy(given, z), rows, device)
        with torch.no_grad():
            return z, self.energy(given, z) + latent.regularizer(z)

    def predict(self, given: Prediction, z: Float[Tensor, "R Z"]) -> Float[Tensor, "R M T D"]:
        """Predict the features of the hidden tokens, given z."""
        context, masked = given
        return self.predictor(context, masked.where, z, masked.valid, masked.mask_sets)

    def energy(self, given: Prediction, z: Float[Tensor, "R Z"]) -> Float[Tensor, "R"]:
        """Return the error of each prediction, mean over its hidden tokens."""
        errors = (self.predict(given, z).float() - given.masked.targets).square().mean(-1)  # R M T
        if given.masked.valid is None:
            return errors.mean((1, 2))
        return errors.where(given.masked.valid, 0.0).sum((1, 2)) / given.masked.valid.sum((1, 2)).clamp(min=1)
