"""Positional command-line arguments with the names that --help shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

Run = Annotated[str, Positional, arg(metavar="RUN")]

Runs = Annotated[tuple[str, ...], Positional, arg(metavar="RUN …")]

Folder = Annotated[str, Positional, arg(metavar="FOLDER")]

Features = Annotated[Path, Positional, arg(metavar="FEATURES")]

Query = Annotated[str, Positional, arg(metavar="IMAGE")]

Source = Annotated[str, Positional, arg(metavar="WEIGHTS")]

Exported = Annotated[Path, Positional, arg(metavar="FOLDER")]

Repository = Annotated[str, Positional, arg(metavar="NAME/REPOSITORY")]

Images = Annotated[tuple[str, ...], Positional, arg(metavar="IMAGES …")]

Folders = Annotated[tuple[str, ...], Positional, arg(metavar="FOLDER …")]

OptionalFolders = Annotated[tuple[str, ...], Positional, arg(metavar="FOLDER …")]

Output = Annotated[Path, Positional, arg(metavar="OUT")]
