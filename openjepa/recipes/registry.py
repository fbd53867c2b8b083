"""Find recipes by name.

A recipe is a function that returns a config; its docstring has the source, the command, the cost and the result.
"""

from __future__ import annotations

import ast
import inspect
from difflib import get_close_matches
from typing import TYPE_CHECKING

from openjepa.core import registry
from openjepa.core.errors import UserError

if TYPE_CHECKING:
    from openjepa.training.config import Pretrain
    from openjepa.training.stages import Stages


def make_recipe(name: str) -> Pretrain | Stages:
    """Return what a recipe returns: the config of a run, or several stages. Raises UserError for an unknown name."""
    check_recipe(name)
    return registry.find("recipe", name)()


def load_recipe(name: str) -> Pretrain:
    """Return the config of a recipe; of stages the first. Raises UserError for an unknown name."""
    from openjepa.training.stages import Stages  # here, because listing recipes needs no torch

    recipe = make_recipe(name)
    return recipe.runs[0] if isinstance(recipe, Stages) else recipe


def check_recipe(name: str) -> None:
    """Raise UserError, which lists all names, if there is no recipe of that name."""
    known = registry.names("recipe")
    if name not in known:
        similar = get_close_matches(name, known, 1)
        suggestion = f": did you mean {similar[0]}?" if similar else ";"
        raise UserError(
            f"no recipe {name!r}{suggestion} recipes: {', '.join(known)}. "
            "Without a recipe, settings are chosen for your images"
        )


def describe_recipe(name: str) -> str:
    """Return a recipe's docstring: summary, source, command, cost and result.

    Reads it from the source file, because importing the recipes imports torch. Raises UserError for an unknown name.
    """
    check_recipe(name)
    tree = ast.parse(registry.source_file("recipe", name).read_text(encoding="utf-8"))
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    return inspect.cleandoc(ast.get_docstring(functions[name.replace("-", "_")]) or "")


def recipe_summary(name: str) -> str:
    """Return the first line of a recipe's docstring."""
    return describe_recipe(name).splitlines()[0]
