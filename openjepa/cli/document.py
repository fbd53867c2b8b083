"""Print the result of a command as one JSON document: the switch --json of every command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

from openjepa.core.console import STREAMS
from openjepa.core.errors import UserError

OWN_FLAGS = {"bench"}  # commands with a flag --json FILE of their own

LISTS = {  # command -> name of the list that it returns
    "demo": "scores", "recipes": "recipes", "probe": "scores", "compare": "scores", "predict": "predictions",
    "show": "files", "search": "hits", "duplicates": "groups", "surprise": "files",
    "anomalies": "files",
}  # fmt: skip


class Document:
    """The result of a command, once it is known."""

    result: object = None


def pop_json_switch(name: str, arguments: list[str]) -> tuple[bool, list[str]]:
    """Return whether --json is among the arguments of a command, and the arguments without it."""
    switches = {position for position, each in enumerate(arguments) if each == "--json"}
    if name in OWN_FLAGS:  # a value follows
        switches = {
            position for position in switches if not arguments[position + 1 :] or arguments[position + 1][0] == "-"
        }
    return bool(switches), [each for position, each in enumerate(arguments) if position not in switches]


@contextlib.contextmanager
def print_as_json(name: str, as_json: bool) -> Iterator[Document]:
    """Print everything on standard error; at the end, the result of the document on standard output.

    Without `as_json`, print as ever. Raises UserError if the document cannot be written.
    """
    document = Document()
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield document
    if as_json and os.environ.get("RANK", "0") == "0":
        print_document(name_result(name, document.result))


def print_document(content: dict[str, Any]) -> None:
    """Print an object as JSON in ASCII, which every stream takes and every program reads."""
    STREAMS["stdout"].write(json.dumps(content, indent=1, allow_nan=False) + "\n")
    STREAMS["stdout"].flush()
    if STREAMS["stdout"].failed:
        raise UserError("the result could not be written to standard output: check the file, or the reader of the pipe")


def name_result(command: str, result: object) -> dict[str, Any]:
    """Return a result as an object of JSON: a list, a path or a text gets a name."""
    content = plain(result)
    if isinstance(content, dict):
        return content
    return {LISTS.get(command, "results") if isinstance(content, list) else "result": content}


def plain(value: Any) -> Any:
    """Return a value as JSON has it; numbers that JSON lacks, such as NaN, become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if dataclasses.is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if hasattr(value, "tolist"):  # arrays and tensors
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    return str(value)
