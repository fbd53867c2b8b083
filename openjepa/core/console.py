"""Print to the terminal, and keep running when nobody reads it."""

from __future__ import annotations

import os
import sys
from typing import Literal

from rich.console import Console

console = Console(highlight=False, stderr=False)


def info(message: str) -> None:
    """A sentence for the person at the terminal."""
    console.print(message, soft_wrap=True, markup=False)


def warn(message: str) -> None:
    """A sentence that should not be missed; on standard error."""
    print_line(f"jepa: {message}", "stderr")


def print_line(line: str, to: Literal["stdout", "stderr"] = "stdout") -> None:
    """A line, if there is anybody to read it: a run goes on when its terminal, or who read its output, is gone."""
    stream = getattr(sys, to)
    try:
        print(line, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
