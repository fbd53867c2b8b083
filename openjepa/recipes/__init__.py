"""Recipes: functions that return one config; the docstring holds source, command, cost and result."""

from collections.abc import Callable

from openjepa.config import Pretrain
from openjepa.recipes import paper, small
from openjepa.types import Mistake

RECIPES: dict[str, Callable[[], Pretrain]] = {
    "ijepa-vith14-in1k": paper.vith14_in1k,
    "ijepa-vith16-448-in1k": paper.vith16_448_in1k,
    "ijepa-vith14-in22k": paper.vith14_in22k,
    "ijepa-vitg16-in22k": paper.vitg16_in22k,
    "ijepa-vitb16": paper.vitb16,
    "ijepa-vitl16": paper.vitl16,
    "ijepa-vits16": paper.vits16,
    "cifar10": small.cifar10,
    "cifar10-minutes": small.cifar10_minutes,
    "cifar10-hours": small.cifar10_hours,
    "cifar10-muon": small.cifar10_muon,
    "mae-cifar10": small.mae_cifar10,
    "vicreg-cifar10": small.vicreg_cifar10,
    "laptop": small.laptop,
}


def recipe(name: str) -> Pretrain:
    """The config of a recipe. Mistake, naming them all, if there is none of that name."""
    if name not in RECIPES:
        raise Mistake(f"no recipe {name!r}: there are {', '.join(RECIPES)}; or leave it out, and it is chosen")
    return RECIPES[name]()


def summary(name: str) -> str:
    """The first line of a recipe's docstring."""
    return (RECIPES[name].__doc__ or "").strip().splitlines()[0]
