"""Find what a folder of modules offers: a class or function with the name of its file, under that name."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from openjepa.core.errors import UserError

DEFINITION = re.compile(r"^(?:class|def) (\w+)", re.MULTILINE)


def list_names(package: str) -> list[str]:
    """List the names of a package's files that define a class or function of the file's name; imports none of them.

    Case and underscores do not count: knn.py defines KNN. A file's underscore is a dash in the name.
    """
    return [file.stem.replace("_", "-") for file in module_files(package) if defined_name(file)]


def describe_names(package: str) -> str:
    """Return a line for each name of a package, with the first line of its file's docstring."""
    files = [file for file in module_files(package) if defined_name(file)]
    summaries = [file.read_text().split('"""')[1].splitlines()[0] for file in files]
    return "\n".join(f"{file.stem.replace('_', '-')}: {each}" for file, each in zip(files, summaries, strict=True))


def find_named(package: str, name: str, kind: str) -> Any:
    """Import one file of a package and return the class or function of its name.

    Raises UserError, which lists the names and suggests the most similar one, if there is no such file.
    """
    names = list_names(package)
    if name not in names:
        similar = get_close_matches(name, names, 1)
        suggestion = f": did you mean {similar[0]}?" if similar else "."
        raise UserError(f"unknown {kind} {name!r}{suggestion} Choose from {', '.join(names)}")
    module = name.replace("-", "_")
    file = next(file for file in module_files(package) if file.stem == module)
    return getattr(import_module(f"{package}.{module}"), defined_name(file))


def module_files(package: str) -> list[Path]:
    """List the files of a package, sorted by name."""
    spec = find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    return sorted(file for folder in folders for file in Path(folder).glob("*.py"))


def defined_name(file: Path) -> str:
    """Return the top-level class or function that is named as its file, or an empty string."""
    own = file.stem.replace("_", "").lower()
    return next((name for name in DEFINITION.findall(file.read_text()) if name.replace("_", "").lower() == own), "")
