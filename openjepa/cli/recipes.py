"""Command `jepa recipes`: list the recipes, or describe one."""

from __future__ import annotations

from rich.table import Table

from openjepa.core.console import console
from openjepa.core.registry import names
from openjepa.recipes.registry import describe_recipe, recipe_summary

HELP = """usage: jepa recipes [NAME]

Lists the recipes; with a NAME, prints its source, command, cost and result."""


def main(arguments: list[str]) -> None:
    """Print the recipes in a table, or one recipe's description: source, command, cost and result."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(HELP)
        return
    if arguments:
        print(describe_recipe(arguments[0]))
        return
    table = Table("recipe", "what it is")
    for name in names("recipe"):
        table.add_row(name, recipe_summary(name))
    console.print(table)
