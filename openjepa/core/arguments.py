"""Positional command-line arguments with the names that --help shows, and the check that no path is empty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from openjepa.core.errors import UserError

# settings for which an empty text means: the default, or nothing
MAY_BE_EMPTY = frozenset({"encoder", "budget", "good", "license", "label", "group", "pattern", "modality"})

WITHOUT_PATHS = ("--method.", "--masks.", "--optim.")  # groups with settings of plug-ins; teachers check themselves

Run = Annotated[str, Positional, arg(metavar="RUN")]

Runs = Annotated[tuple[str, ...], Positional, arg(metavar="RUN …")]

Folder = Annotated[str, Positional, arg(metavar="FOLDER")]

Features = Annotated[Path, Positional, arg(metavar="FEATURES")]

Query = Annotated[str, Positional, arg(metavar="FILE")]

Source = Annotated[str, Positional, arg(metavar="WEIGHTS")]

Exported = Annotated[Path, Positional, arg(metavar="FOLDER")]

Repository = Annotated[str, Positional, arg(metavar="NAME/REPOSITORY")]

Images = Annotated[tuple[str, ...], Positional, arg(metavar="FILES …")]

FirstFrame = Annotated[Path, Positional, arg(metavar="FIRST")]

SecondFrame = Annotated[Path, Positional, arg(metavar="SECOND")]

Videos = Annotated[tuple[str, ...], Positional, arg(metavar="VIDEO …")]

Folders = Annotated[tuple[str, ...], Positional, arg(metavar="FOLDER …")]

OptionalFolders = Annotated[tuple[str, ...], Positional, arg(metavar="FOLDER …")]

Output = Annotated[Path, Positional, arg(metavar="OUT")]


def check_no_path_is_empty(arguments: Sequence[str]) -> None:
    """Raise UserError for an empty path, which Python takes for the working folder: a variable of a script is unset."""
    flag = ""
    for each in arguments:
        name, equals, value = each.partition("=")
        if name.startswith("--"):
            flag = name
        is_empty = not each.strip() or (name.startswith("--") and equals and not value.strip())
        allowed = flag.rsplit(".", 1)[-1].removeprefix("--") in MAY_BE_EMPTY or flag.startswith(WITHOUT_PATHS)
        if is_empty and not allowed:
            raise UserError(f"{flag or 'an argument'} is empty: give a path (. is the working folder)")
