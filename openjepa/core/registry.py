"""Find modalities, methods, mask strategies, probes, tasks, recipes and demos by the name of their file.

`modalities/audio.py` is the modality `audio` if it has a class (of a demo: a function) of this name, in any case
(`Audio`); `four_rooms.py` is `four-rooms`. A recipe is a function. Listing names imports nothing. Outside the package:
an entry point of the group `openjepa.KIND`, or a file or module that the user names with `--plugin`.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from openjepa.core.errors import UserError

PACKAGE = Path(__file__).parent.parent

FOLDERS = {  # kind -> folder in the package
    "modality": "modalities",
    "method": "methods",
    "masks": "masking",
    "probe": "evaluation/probes",
    "task": "evaluation/tasks",
    "recipe": "recipes",
    "demo": "cli/demos",
}
# kind -> what a plug-in's class must have to be of this kind
ATTRIBUTES = {
    "modality": ("layout", "token_dim", "dataset", "tokens", "tokenizer"),
    "method": ("build", "check", "cost"),
    "masks": ("__call__", "shapes"),
    "probe": ("run",),
    "task": ("split", "baselines"),
}
DEFINITION = re.compile(r"^(?:class|def) (\w+)", re.MULTILINE)
RECIPE = re.compile(r"^def (\w+)\(\) -> (?:Pretrain|Stages)\b", re.MULTILINE)


@dataclass
class Plugins:
    """What `--plugin` has registered in this process."""

    sources: list[str] = field(default_factory=list)  # files and modules as typed
    registered: dict[tuple[str, str], Any] = field(default_factory=dict)  # (kind, name) -> class or function


PLUGINS = Plugins()


def names(kind: str) -> list[str]:
    """Return the registered names of a kind, the package's own first; imports nothing of the package."""
    added = [name for each, name in PLUGINS.registered if each == kind]
    return list(dict.fromkeys([*package_modules(kind), *(point.name for point in points(kind)), *added]))


def find(kind: str, name: Any) -> Any:
    """Import and return the registered class, or of a recipe the function. Raises UserError if the name is unknown."""
    if (kind, name) in PLUGINS.registered:
        return PLUGINS.registered[kind, name]
    modules = package_modules(kind)
    if name in modules:
        module = importlib.import_module(modules[name])
        return getattr(module, object_name(kind, Path(module.__file__ or ""), name))
    for point in points(kind):
        if point.name == name:
            return point.load()
    raise UserError(unknown_name(kind, str(name)))


def name_of(kind: str, value: Any) -> str:
    """Return the name under which the class of `value` is registered."""
    cls = type(value)
    for (each, name), plugin in PLUGINS.registered.items():
        if each == kind and plugin is cls:
            return name
    for name, module in package_modules(kind).items():
        if cls.__module__ == module:
            return name
    for point in points(kind):
        if point.load() is cls:
            return point.name
    raise UserError(f"{cls.__name__} is not registered as a {kind}: name its file with --plugin FILE")


def summaries(kind: str) -> str:
    """Return a line for each name of a kind, with the first line of its file's docstring; imports nothing."""
    lines = (
        (name, source_file(kind, name).read_text(encoding="utf-8").split('"""')[1].splitlines()[0])
        for name in names(kind)
    )
    return "\n".join(f"{name}: {line}" for name, line in lines)


def source_file(kind: str, name: str) -> Path:
    """Return the file that defines a registered class or function, without importing it if it is the package's own."""
    modules = package_modules(kind)
    if (kind, name) not in PLUGINS.registered and name in modules:
        return PACKAGE.joinpath(*modules[name].split(".")[1:]).with_suffix(".py")
    return Path(sys.modules[find(kind, name).__module__].__file__ or "")


def unknown_name(kind: str, name: str) -> str:
    """Return the message for a name that is not registered."""
    known = names(kind)
    similar = get_close_matches(name, known, 1)
    suggestion = f"did you mean {similar[0]}? " if similar else ""
    return (
        f"unknown {kind} {name!r}: {suggestion}choose one of {', '.join(known)}, "
        f"or add the file or module that defines it: --plugin {name.replace('-', '_')}.py"
    )


@lru_cache
def package_modules(kind: str) -> dict[str, str]:
    """Return name -> module of what the package itself registers, without importing it."""
    modules = {}
    for file in sorted((PACKAGE / FOLDERS[kind]).glob("*.py")):
        module = ".".join(["openjepa", *FOLDERS[kind].split("/"), file.stem])
        if kind == "recipe":
            modules |= {dashed(name): module for name in RECIPE.findall(file.read_text(encoding="utf-8"))}
        elif defined_name(file):
            modules[dashed(file.stem)] = module
    return modules


def object_name(kind: str, file: Path, name: str) -> str:
    """Return the name of the class or function that a file registers under `name`."""
    return name.replace("-", "_") if kind == "recipe" else defined_name(file) or ""


@lru_cache
def defined_name(file: Path) -> str | None:
    """Return the class or function of a file that has the file's name, in any case and without underscores."""
    name = file.stem.replace("_", "").lower()
    return next(
        (
            each
            for each in DEFINITION.findall(file.read_text(encoding="utf-8"))
            if each.replace("_", "").lower() == name
        ),
        None,
    )


def dashed(name: str) -> str:
    return name.replace("_", "-")


@lru_cache
def points(kind: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of other installed packages."""
    return tuple(entry_points(group=f"openjepa.{kind}"))


def load_plugins(sources: list[str] | tuple[str, ...]) -> None:
    """Import files or modules and register what they define; those that are loaded already stay as they are.

    Raises UserError if one does not exist, defines nothing that can be registered, or takes a name that exists.
    """
    for source in map(absolute_source, sources):
        if source in PLUGINS.sources:
            continue
        new = dict(registered_by(source))
        if not new:
            raise UserError(
                f"--plugin {source} defines nothing to register: it needs a class with the file's name that is a "
                f"{', '.join(ATTRIBUTES)}, or a function without arguments that returns a Pretrain (a recipe); "
                "see docs/explained/architecture.md"
            )
        for kind, name in new:
            if name in names(kind):
                raise UserError(f"--plugin {source} defines the {kind} {name!r}, which exists already: rename the file")
        PLUGINS.sources.append(source)
        PLUGINS.registered |= new


def absolute_source(source: str) -> str:
    """Return the absolute path of a file, and a module's name as it is."""
    return str(Path(source).expanduser().resolve()) if source.endswith(".py") else source


def registered_by(source: str) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield ((kind, name), class or function) for everything that a plug-in registers."""
    module = import_plugin(source)
    file = Path(module.__file__ or "")
    name = defined_name(file)
    if name:
        cls = getattr(module, name)
        kind = kind_of(cls)
        if kind:
            yield (kind, dashed(file.stem)), cls
    for recipe in RECIPE.findall(file.read_text(encoding="utf-8")):
        yield ("recipe", dashed(recipe)), getattr(module, recipe)


def kind_of(cls: type) -> str | None:
    """Return the kind of a plug-in's class from the attributes that it has."""
    return next((kind for kind, needed in ATTRIBUTES.items() if all(hasattr(cls, each) for each in needed)), None)


def import_plugin(source: str) -> Any:
    """Import a file (PATH.py) or a module (my_lab.audio). Raises UserError if it does not exist."""
    if not source.endswith(".py"):
        try:
            return importlib.import_module(source)
        except ModuleNotFoundError as error:
            raise UserError(f"--plugin {source}: {error}: give a file (plugin.py) or an installed module") from error
    file = Path(source)
    if not file.is_file():
        raise UserError(f"--plugin {source} does not exist: give a file (plugin.py) or an installed module")
    name = f"openjepa_plugin_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
