"""Print to the terminal, and keep running when the terminal is closed."""

from __future__ import annotations

import functools
import os
import sys
from typing import Literal

from rich.console import Console

console = Console(highlight=False, stderr=False)


def info(message: str) -> None:
    """Print a message for the user on standard output."""
    console.print(message, soft_wrap=True, markup=False)


@functools.cache  # data is listed more than once
def info_once(message: str) -> None:
    """Print a message for the user on standard output, once in a process."""
    info(message)


def warn(message: str) -> None:
    """Print a warning for the user on standard error."""
    print_line(f"jepa: {message}", "stderr")


def print_line(line: str, to: Literal["stdout", "stderr"] = "stdout") -> None:
    """Print a line; if the terminal or pipe is closed, drop this and all later output instead of failing."""
    stream = getattr(sys, to)
    try:
        print(line, file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
