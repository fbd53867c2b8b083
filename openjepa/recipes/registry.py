"""Find recipes by name; a recipe is a function that returns a config, and its docstring holds source, command, cost and result."""

from __future__ import annotations

from collections.abc import Callable

from openjepa.core.errors import UserError
from openjepa.recipes.ijepa_paper import (
    vitb16,
    vitg16_in22k,
    vith14_in1k,
    vith14_in22k,
    vith16_448_in1k,
    vitl16,
    vits16,
)
from openjepa.recipes.image_small import (
    cifar10,
    cifar10_hours,
    cifar10_minutes,
    cifar10_muon,
    laptop,
    mae_cifar10,
    vicreg_cifar10,
)
from openjepa.training.config import Pretrain

RECIPES: dict[str, Callable[[], Pretrain]] = {
    "ijepa-vith14-in1k": vith14_in1k,
    "ijepa-vith16-448-in1k": vith16_448_in1k,
    "ijepa-vith14-in22k": vith14_in22k,
    "ijepa-vitg16-in22k": vitg16_in22k,
    "ijepa-vitb16": vitb16,
    "ijepa-vitl16": vitl16,
    "ijepa-vits16": vits16,
    "cifar10": cifar10,
    "cifar10-minutes": cifar10_minutes,
    "cifar10-hours": cifar10_hours,
    "cifar10-muon": cifar10_muon,
    "mae-cifar10": mae_cifar10,
    "vicreg-cifar10": vicreg_cifar10,
    "laptop": laptop,
}


def load_recipe(name: str) -> Pretrain:
    """The config of a recipe. Mistake, naming them all, if there is none of that name."""
    if name not in RECIPES:
        raise UserError(f"no recipe {name!r}: there are {', '.join(RECIPES)}; or leave it out, and it is chosen")
    return RECIPES[name]()


def recipe_summary(name: str) -> str:
    """The first line of a recipe's docstring."""
    return (RECIPES[name].__doc__ or "").strip().splitlines()[0]
