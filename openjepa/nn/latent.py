"""Hidden variables of a prediction: what the context does not tell, inferred by minimizing the energy.

R predictions of a batch  Z width of z  K codes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG

Energy = Callable[[Float[Tensor, "R Z"]], Float[Tensor, "R"]]  # of each prediction, given its z


CODE = 8.0  # the value of a code that is not 0: a code is about as long as the query that it is concatenated to


@dataclass(frozen=True)
class LatentConfig:
    """A hidden variable z, and how it is inferred: F(x, y) = min over z of E(x, y, z) + R(z).

    What z can carry must be limited, or it explains every y. Source: LeCun 2022, sections 4.3 and 4.5.
    """

    # codes: one of so many, each is tried; vector: so many values, inferred by gradient descent; noisy: a
    # vector whose inferred value gets noise in training
    kind: Literal["codes", "vector", "noisy"] = "codes"
    size: int = 4  # number of codes, or of values
    weight: float = 0.0  # of the regularizer R(z) = |z|² of a vector
    noise: float = 1.0  # standard deviation of the noise of `noisy`
    steps: int = 8  # of the gradient descent
    lr: float = 1.0  # length of its first step for each value; later ones are shorter

    def check(self, flag: str) -> None:
        """Raise UserError for settings without a meaning."""
        for name, low in (("size", 1), ("steps", 1), ("weight", 0), ("noise", 0)):
            if getattr(self, name) < low:
                raise UserError(f"{flag}.{name} must be >= {low}, got {getattr(self, name):g}")
        if self.lr <= 0:
            raise UserError(f"{flag}.lr must be > 0, got {self.lr:g}")
        if self.kind == "codes" and self.weight:
            raise UserError(f"{flag}.weight is for vectors: the number of codes limits what they carry")

    def infer(self, energy: Energy, rows: int, device: torch.device) -> Float[Tensor, "R Z"]:
        """Return the z of each prediction that minimizes its energy, without a gradient."""
        if self.kind == "codes":
            with torch.no_grad():
                energies = torch.stack([energy(code.expand(rows, -1)) for code in self.codes(device)])  # K R
            return self.codes(device)[energies.argmin(0)]
        z = torch.zeros(rows, self.size, device=device)
        for step in range(self.steps):
            z = z.detach().requires_grad_()
            with torch.enable_grad():
                (slope,) = torch.autograd.grad((energy(z) + self.regularizer(z)).sum(), z)
            length = self.lr * (1 - step / self.steps)
            z = z - length * F.normalize(slope.float(), dim=1) * self.size**0.5
        return z.detach()

    def regularizer(self, z: Float[Tensor, "R Z"]) -> Float[Tensor, "R"]:
        """Return R(z)."""
        return self.weight * z.square().sum(1)

    def codes(self, device: torch.device) -> Float[Tensor, "K Z"]:
        """Return all codes: one value is `CODE`, the others are 0."""
        return CODE * torch.eye(self.size, device=device)

    def perturb(self, z: Float[Tensor, "R Z"], share: float, rng: CounterRNG) -> Float[Tensor, "R Z"]:
        """Return what is trained with: for a share of predictions no z, or any code; `noisy` adds its noise."""
        if self.kind == "noisy":
            uniform = rng.uniform("noise of z", self.size).clamp(1e-6, 1 - 1e-6).to(z)
            z = z + self.noise * torch.special.ndtri(uniform)
        choice = rng.uniform("which z", 2).to(z.device)
        others = torch.cat([torch.zeros_like(z[:1]), self.codes(z.device) if self.kind == "codes" else z[:0]])
        other = others[(choice[:, 1] * len(others)).long()]
        return torch.where((choice[:, 0] < share)[:, None], other, z)
