"""Convert settings to and from JSON, check every value against its field's type, and parse durations."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal

from openjepa.core import registry
from openjepa.core.errors import UserError


def parse_duration(text: str, flag: str = "") -> float:
    """Convert a duration such as 2h, 90m, 1h30m or 45s to seconds; an empty text is 0.

    Raises UserError, which names the flag, if the text is not a duration of whole hours, minutes and seconds above 0.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    total = 0
    if match:
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        total = 3600 * hours + 60 * minutes + seconds
    if text and not total:
        raise UserError(f"{flag} invalid duration {text!r}: use 2h, 1h30m, 90m or 45s, longer than 0s".strip())
    return float(total)


def format_duration(seconds: float) -> str:
    """Format seconds as text that `parse_duration` reads: 48s, 75m or 2h10m."""
    if seconds < 120:
        return f"{seconds:.0f}s"
    minutes = round(seconds / 60)
    return f"{minutes}m" if minutes < 120 else f"{minutes // 60}h{minutes % 60 or ''}{'m' if minutes % 60 else ''}"


@dataclasses.dataclass(frozen=True)
class Registered:
    """Mark a field that holds a registered class of a kind: `Annotated[Any, Registered("modality")]`."""

    kind: str


def registered_fields(kind: type) -> dict[str, str]:
    """Return the fields of a dataclass that hold registered classes, and their kinds."""
    hints = typing.get_type_hints(kind, include_extras=True)
    marks = {name: [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Registered)]
             for name, hint in hints.items()}  # fmt: skip
    return {name: own[0].kind for name, own in marks.items() if own}


def with_types(settings: Any, plain: dict[str, Any]) -> dict[str, Any]:
    """Add the names of registered classes to the plain values of settings that hold some."""
    nested = {
        name: {"type": registry.name_of(kind, getattr(settings, name)), **plain[name]}
        for name, kind in registered_fields(type(settings)).items()
    }
    return plain | nested


def build_registered(kind: str, plain: dict[str, Any]) -> Any:
    """Build the registered class that `type` names from its settings."""
    plain = dict(plain)
    return from_plain(registry.find(kind, plain.pop("type", None)), plain)


def from_plain(kind: type, plain: dict[str, Any]) -> Any:
    """Build the dataclass `kind` from plain JSON values.

    Raises UserError if a name is not a field or a value does not have its field's type.
    """
    resolved = typing.get_type_hints(kind)
    hints = {field.name: resolved[field.name] for field in dataclasses.fields(kind)}
    unknown = sorted(plain.keys() - hints.keys())
    if unknown:
        raise UserError(f"{kind.__name__} has no setting {unknown[0]!r}; its settings are {', '.join(hints)}")
    built = {name: build_registered(own, plain[name]) for name, own in registered_fields(kind).items() if name in plain}
    rest = {name: convert_value(hints[name], value, name) for name, value in plain.items() if name not in built}
    return kind(**rest, **built)


def convert_value(hint: Any, value: Any, name: str) -> Any:
    """Convert a JSON value to the type `hint` of the field `name`.

    Raises UserError if the value does not have this type.
    """
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
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_plain(hint, value)  # type: ignore[arg-type]
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise UserError(f"{name} cannot be {value!r}: its type is {getattr(hint, '__name__', hint)}")


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries into one, with keys such as `method.dim`."""
    flat = {}
    for name, value in plain.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
