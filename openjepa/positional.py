"""What stands behind a verb without a flag, under the name that --help gives it."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

Run = Annotated[str, Positional, arg(metavar="RUN")]
Runs = Annotated[tuple[str, ...], Positional, arg(metavar="RUN …")]
Data = Annotated[str, Positional, arg(metavar="FOLDER")]
Features = Annotated[Path, Positional, arg(metavar="FEATURES")]
Query = Annotated[str, Positional, arg(metavar="PICTURE")]
Source = Annotated[str, Positional, arg(metavar="WEIGHTS")]
Exported = Annotated[Path, Positional, arg(metavar="FOLDER")]
Repository = Annotated[str, Positional, arg(metavar="NAME/REPOSITORY")]
Pictures = Annotated[tuple[str, ...], Positional, arg(metavar="PICTURES …")]
