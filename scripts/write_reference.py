"""Write the pages of the reference that follow from the package: every command's --help, recipes, public names.

    python -m scripts.write_reference

`make docs` calls it, and a test compares the pages with the package.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import openjepa
from openjepa.cli.actions import DECODER_ACTIONS
from openjepa.cli.main import COMMANDS, main
from openjepa.core.registry import names
from openjepa.recipes.registry import describe_recipe
from openjepa.viz.settings import FIGURE_OPTIONS

FOLDER = Path(__file__).parents[1] / "docs" / "reference"

WIDTH = 96  # of the help texts

MORE = {"show": FIGURE_OPTIONS, "decoder": DECODER_ACTIONS}  # commands whose first argument chooses the settings

WRITTEN = "<!-- Written by `python -m scripts.write_reference`. -->"


def pages() -> dict[str, str]:
    """Return the text of each page by its path below the folder."""
    commands = {f"commands/{heading.lower()}.md": commands_page(heading) for heading in COMMANDS}
    return commands | {"recipes.md": recipes_page(), "python.md": python_page()}


def commands_page(heading: str) -> str:
    """Return the help of the commands of a group."""
    parts = [f"# Commands: {heading.lower()}", WRITTEN, "What `jepa COMMAND --help` prints."]
    for name, (arguments, summary) in COMMANDS[heading].items():
        parts += [f"## jepa {name}", f"`{f'jepa {name} {arguments}'.strip()}`: {summary}.", block(help_of(name))]
        for action in MORE.get(name, ()):
            parts += [f"### jepa {name} {action}", block(help_of(name, action))]
    return "\n\n".join(parts) + "\n"


def help_of(*words: str) -> str:
    """Return what a command prints for --help."""
    return printed(lambda: main([*words, "--help"]))


def printed(call: Callable[[], object]) -> str:
    """Return what a function prints, in lines of a fixed width."""
    out, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            call()
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    lines = [line.rstrip() for line in out.getvalue().strip().splitlines()]
    return "\n".join(wrap(line) for line in lines)


def wrap(line: str) -> str:
    """Break a line of prose; the others are narrow enough."""
    return line if len(line) <= WIDTH or line.startswith((" ", "usage:")) else textwrap.fill(line, WIDTH)


def block(text: str) -> str:
    """Return text as a block of code."""
    return f"```text\n{text}\n```"


def recipes_page() -> str:
    """Return what each recipe says of itself: source, command, cost and result."""
    parts = [
        "# Recipes",
        WRITTEN,
        "`jepa pretrain NAME --data.root FOLDER --out RUN` trains one; flags change settings.",
    ]
    for name in names("recipe"):
        parts += [f"## {name}", block(describe_recipe(name))]
    return "\n\n".join(parts) + "\n"


def python_page() -> str:
    """Return the public names of the package, which mkdocstrings describes."""
    modules = dict(openjepa.MODULES)
    functions = [name for name in modules if inspect.isfunction(getattr(openjepa, name))]
    others = [name for name in modules if name not in functions]
    parts = ["# Python", WRITTEN, "`import openjepa`: each command is a function whose argument is its settings."]
    for heading, group in (("Functions", functions), ("Settings and classes", others)):
        parts.append(f"## {heading}")
        for name in group:
            path = f"{getattr(openjepa, name).__module__}.{getattr(openjepa, name).__qualname__}"
            parts.append(f"::: {path}\n    options: {{heading_level: 3}}")
    return "\n\n".join(parts) + "\n"


def write() -> None:
    """Write the pages that have changed."""
    for path, text in pages().items():
        file = FOLDER / path
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            print(f"written {file}", file=sys.stderr)


if __name__ == "__main__":
    write()
