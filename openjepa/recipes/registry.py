"""Find recipes by name.

A recipe is a function that returns a config; its docstring has the source, the command, the cost and the result.
"""

from __future__ import annotations

import ast
import inspect
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from openjepa.core.errors import UserError

if TYPE_CHECKING:
    from openjepa.training.config import Pretrain

RECIPES = {  # name -> module in openjepa/recipes and function, imported when the recipe is loaded
    "ijepa-vith14-in1k": "ijepa_paper.vith14_in1k",
    "ijepa-vith16-448-in1k": "ijepa_paper.vith16_448_in1k",
    "ijepa-vith14-in22k": "ijepa_paper.vith14_in22k",
    "ijepa-vitg16-in22k": "ijepa_paper.vitg16_in22k",
    "ijepa-vitb16": "ijepa_paper.vitb16",
    "ijepa-vitl16": "ijepa_paper.vitl16",
    "ijepa-vits16": "ijepa_paper.vits16",
    "cifar10": "image_small.cifar10",
    "cifar10-minutes": "image_small.cifar10_minutes",
    "cifar10-hours": "image_small.cifar10_hours",
    "cifar10-muon": "image_small.cifar10_muon",
    "mae-cifar10": "image_small.mae_cifar10",
    "vicreg-cifar10": "image_small.vicreg_cifar10",
    "laptop": "image_small.laptop",
}


def load_recipe(name: str) -> Pretrain:
    """Return the config of a recipe. Raises UserError for an unknown name."""
    check_recipe(name)
    module, function = RECIPES[name].split(".")
    return getattr(import_module(f"openjepa.recipes.{module}"), function)()


def check_recipe(name: str) -> None:
    """Raise UserError, which lists all names, if there is no recipe of that name."""
    if name not in RECIPES:
        similar = get_close_matches(name, RECIPES, 1)
        suggestion = f": did you mean {similar[0]}?" if similar else ";"
        raise UserError(
            f"no recipe {name!r}{suggestion} recipes: {', '.join(RECIPES)}. "
            "Without a recipe, settings are chosen for your images"
        )


def describe_recipe(name: str) -> str:
    """Return a recipe's docstring: summary, source, command, cost and result.

    Reads it from the source file, because importing the recipes imports torch. Raises UserError for an unknown name.
    """
    check_recipe(name)
    module, function = RECIPES[name].split(".")
    tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text())
    node = next(each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == function)
    return inspect.cleandoc(ast.get_docstring(node) or "")


def recipe_summary(name: str) -> str:
    """Return the first line of a recipe's docstring."""
    return describe_recipe(name).splitlines()[0]
