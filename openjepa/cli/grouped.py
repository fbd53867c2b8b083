"""Parse a flat dataclass of settings whose bases are its groups: a heading in --help for each, and no prefix in the flags."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import tyro


def parse_grouped(default: Any, arguments: list[str], prog: str, description: str) -> Any:
    """Parse the arguments on top of `default` and return settings of the same class.

    The headings are the names of the base classes. A field that is a dataclass itself keeps its name as a prefix.
    """
    cls = type(default)
    groups = {group.__name__.lower(): group for group in sorted(settings_groups(cls), key=has_dataclasses)}
    own = [
        each
        for each in dataclasses.fields(cls)
        if each.name not in {name for g in groups.values() for name in names(g)}
    ]
    fields: list[tuple[str, Any, Any]] = [
        (name, annotated(group), instance(group, default)) for name, group in groups.items()
    ]
    fields += [(each.name, type(getattr(default, each.name)), getattr(default, each.name)) for each in own]
    view = dataclasses.make_dataclass(cls.__name__, fields, frozen=True)
    parsed = tyro.cli(
        view, prog=prog, args=arguments, description=description, config=(tyro.conf.AvoidSubcommands,),
    )  # fmt: skip
    values = {name: value for group in groups for name, value in shallow(getattr(parsed, group)).items()}
    return cls(**values, **{each.name: getattr(parsed, each.name) for each in own})


def settings_groups(cls: type) -> list[type]:
    """Return the base dataclasses of a class, in the order of its fields."""
    return [
        base for base in reversed(cls.__mro__[1:]) if dataclasses.is_dataclass(base) and base.__bases__ == (object,)
    ]


def names(group: type) -> list[str]:
    return [each.name for each in dataclasses.fields(group)]


def has_dataclasses(group: type) -> bool:
    """Tell whether fields of a group are dataclasses themselves, with headings of their own."""
    return any(dataclasses.is_dataclass(each.default_factory) for each in dataclasses.fields(group))


def annotated(group: type) -> Any:
    """Annotate a group such that its flags have no prefix; one of plain values gets a heading."""
    return Annotated[group, tyro.conf.arg(name="") if has_dataclasses(group) else tyro.conf.OmitArgPrefixes]


def instance(group: type, default: Any) -> Any:
    """Return a group with the values of `default`."""
    return group(**{name: getattr(default, name) for name in names(group)})


def shallow(group: Any) -> dict[str, Any]:
    """Return a group's values by name; dataclasses in it stay as they are."""
    return {name: getattr(group, name) for name in names(type(group))}
