"""Command `jepa recipes`: list the recipes, or describe one."""

from __future__ import annotations

from typing import Any

from openjepa.core.console import print_line
from openjepa.core.registry import names
from openjepa.core.tables import print_table
from openjepa.recipes.registry import describe_recipe, recipe_summary

HELP = """usage: jepa recipes [NAME]

Lists the recipes; with a NAME, prints its source, command, cost and result."""


def main(arguments: list[str]) -> list[dict[str, Any]]:
    """Print the recipes in a table, or one recipe's description: source, command, cost and result; return them."""
    if arguments[:1] in (["-h"], ["--help"]):
        print_line(HELP)
        return []
    if arguments:
        description = describe_recipe(arguments[0])
        print_line(description)
        return [{"recipe": arguments[0], "description": description}]
    recipes = [{"recipe": name, "summary": recipe_summary(name)} for name in names("recipe")]
    print_table(("recipe", "what it is"), [tuple(each.values()) for each in recipes])
    return recipes
