"""Parse settings whose base classes are groups: each is a heading in --help and adds no prefix to its flags."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Generic, get_type_hints

import tyro


def parse_grouped(default: Any, arguments: list[str], prog: str, description: str) -> Any:
    """Parse the arguments on top of `default` and return settings of the same class.

    The headings in --help are the names of the base classes. The flags of a field that is a dataclass keep the field's
    name as their prefix.
    """
    cls = type(default)
    groups = {group.__name__.lower(): group for group in sorted(settings_groups(cls), key=has_dataclasses)}
    grouped = {name for group in groups.values() for name in field_names(group)}
    own = [
        each.name for each in dataclasses.fields(cls) if each.name not in grouped and getattr(default, each.name) != ()
    ]
    fields: list[tuple[str, Any, Any]] = [
        (name, annotate_group(group, default), extract_group(group, default)) for name, group in groups.items()
    ]
    fields += [(name, concrete_type(getattr(default, name)), getattr(default, name)) for name in own]
    view = dataclasses.make_dataclass(cls.__name__, fields, frozen=True)
    parsed = tyro.cli(
        view, prog=prog, args=arguments, description=description, config=(tyro.conf.AvoidSubcommands,),
    )  # fmt: skip
    values = {name: value for group in groups for name, value in shallow_dict(getattr(parsed, group)).items()}
    return cls(**values, **{name: getattr(parsed, name) for name in own})


def concrete_type(value: Any) -> Any:
    """Return the type of a value; of a tuple also the type of each of its items, which then get flags `--name.0.…`."""
    if isinstance(value, tuple):
        return tuple[tuple(narrow_generic(type(each), each) for each in value)]  # type: ignore[misc]
    return type(value)


def narrow_generic(cls: Any, settings: Any) -> Any:
    """Return a generic dataclass for the types that its fields' values have, whose flags are then shown."""
    fields = get_type_hints(cls)
    types = [
        next(type(getattr(settings, name)) for name, hint in fields.items() if hint is parameter)
        for parameter in getattr(cls, "__parameters__", ())
    ]
    return cls[tuple(types)] if types else cls


def settings_groups(cls: type) -> list[type]:
    """Return the base dataclasses of a class, in the order of its fields."""
    return [
        base
        for base in reversed(cls.__mro__[1:])
        if dataclasses.is_dataclass(base) and set(base.__bases__) <= {object, Generic}
    ]


def field_names(group: type) -> list[str]:
    return [each.name for each in dataclasses.fields(group)]


def has_dataclasses(group: type) -> bool:
    """Tell whether fields of a group are dataclasses, which get headings of their own."""
    return any(dataclasses.is_dataclass(each.default_factory) for each in dataclasses.fields(group))


def annotate_group(group: type, settings: Any) -> Any:
    """Annotate a group so that its flags have no prefix; a group of plain values also gets a heading."""
    prefix = tyro.conf.arg(name="") if has_dataclasses(group) else tyro.conf.OmitArgPrefixes
    return Annotated[narrow_generic(group, settings), prefix]


def extract_group(group: type, settings: Any) -> Any:
    """Return an instance of the group with its fields' values in `settings`."""
    return group(**{name: getattr(settings, name) for name in field_names(group)})


def shallow_dict(group: Any) -> dict[str, Any]:
    """Return a group's values by name; fields that are dataclasses stay as they are."""
    return {name: getattr(group, name) for name in field_names(type(group))}
