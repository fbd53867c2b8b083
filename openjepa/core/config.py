"""Convert settings to and from JSON, with every value checked against its field's type; parse durations."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal

from openjepa.core.errors import UserError


def parse_duration(budget: str) -> float:
    """The seconds of a time such as 2h, 90m, 1h30m or 45s; 0 of an empty one. Mistake in a sentence otherwise."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", budget.strip())
    total = sum(int(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    if budget and not total:
        raise UserError(f"{budget!r} is no time: times are written 2h, 1h30m, 90m or 45s")
    return float(total)


def format_duration(time: float) -> str:
    """Seconds as `seconds` reads them: 48s, 75m or 2h10m."""
    if time < 120:
        return f"{time:.0f}s"
    minutes = round(time / 60)
    return f"{minutes}m" if minutes < 120 else f"{minutes // 60}h{minutes % 60 or ''}{'m' if minutes % 60 else ''}"


def from_plain(kind: type, plain: dict[str, Any]) -> Any:
    """A dataclass from plain values, every one checked against its field's type."""
    every = typing.get_type_hints(kind)
    hints = {each.name: every[each.name] for each in dataclasses.fields(kind)}
    unknown = sorted(plain.keys() - hints.keys())
    if unknown:
        raise UserError(f"{kind.__name__} has no setting {unknown[0]!r}: its settings are {', '.join(hints)}")
    return kind(**{name: convert_value(hints[name], value, name) for name, value in plain.items()})


def convert_value(hint: Any, value: Any, name: str) -> Any:
    """A JSON value as the type a field wants. Mistake if it is another."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(convert_value(kind, each, name) for kind, each in zip(kinds, value, strict=True))
    if origin in (typing.Union, types.UnionType) and value is None and type(None) in arguments:
        return None
    if hint is Path or (origin in (typing.Union, types.UnionType) and Path in arguments):
        return Path(str(value))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise UserError(f"{name} cannot be {value!r}: it is {getattr(hint, '__name__', hint)}")


def lookup(registry: dict[str, type], name: Any) -> type:
    if name not in registry:
        raise UserError(f"{name!r} is none of {', '.join(registry)}")
    return registry[name]


def registered_name(registry: dict[str, type], value: Any) -> str:
    return next(name for name, kind in registry.items() if type(value) is kind)


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in plain.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
