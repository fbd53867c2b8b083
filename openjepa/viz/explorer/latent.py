"""Turn the hidden variable z of a prediction by hand, on the explorer's page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.nn.latent import LatentConfig

MAX_SLIDERS, RANGE = 6, 3.0  # values of a vector that can be turned, and how far

WITHOUT = "no z"  # the prediction of what all futures share


class LatentControls:
    """A choice of codes, or sliders for the first values of a vector; calls back when z changes."""

    def __init__(self, ui: Any, latent: LatentConfig, changed: Callable[[], None]):
        self.latent = latent
        self.choice: Any = None
        self.sliders: list[Any] = []
        with ui.row().classes("items-center gap-3").props("id=latent"):
            if latent.kind == "codes":
                names = [WITHOUT, *(f"code {number + 1}" for number in range(latent.size))]
                ui.label("z:")
                self.choice = ui.toggle(names, value=WITHOUT, on_change=changed)
                return
            for number in range(min(latent.size, MAX_SLIDERS)):
                ui.label(f"z{number + 1}").classes("text-sm")
                slider = ui.slider(min=-RANGE, max=RANGE, step=0.1, value=0.0, on_change=changed).classes("w-28")
                self.sliders.append(slider)

    def describe(self) -> str:
        """Return the chosen z in words."""
        if self.choice is not None:
            return self.choice.value
        return "z = " + " ".join(f"{slider.value:.1f}" for slider in self.sliders)

    def z(self) -> Float[Tensor, "Z"]:
        """Return the chosen z; all 0: no z."""
        z = torch.zeros(self.latent.size)
        if self.choice is not None:
            codes = self.latent.codes(z.device)
            return z if self.choice.value == WITHOUT else codes[int(self.choice.value.split()[-1]) - 1]
        for number, slider in enumerate(self.sliders):
            z[number] = float(slider.value)
        return z
