"""Print to the terminal, and keep running whatever the terminal or the reader of a pipe does."""

from __future__ import annotations

import codecs
import functools
import io
import os
import sys
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from rich.console import Console

from openjepa.core.errors import Interrupted, UserError
from openjepa.core.names import ENCODING_ERRORS, printable, substitute_characters

Drawn = TypeVar("Drawn")


class OpenStream:
    """Standard output or standard error: no write fails, whatever happens to the reader and whatever the encoding."""

    def __init__(self, name: Literal["stdout", "stderr"]):
        self.name, self.failed = name, False

    @property
    def stream(self) -> Any:
        """Return the stream of this moment; None if it was closed before the start."""
        stream = getattr(sys, self.name)
        return getattr(stream, "rich_proxied_file", stream)

    @property
    def encoding(self) -> str:
        """Return the encoding, on which the frames of tables depend."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text; characters that the encoding lacks are replaced."""
        self.attempt(lambda: self.write_encodable(text))
        return len(text)

    def write_encodable(self, text: str) -> None:
        """Write a text to a stream that may refuse characters."""
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            codecs.register_error(ENCODING_ERRORS, substitute_characters)
            self.stream.write(text.encode(self.encoding, ENCODING_ERRORS).decode(self.encoding))

    def flush(self) -> None:
        """Hand what was written to the system."""
        self.attempt(lambda: self.stream.flush())

    def attempt(self, write: Callable[[], object]) -> None:
        """Write or flush; if that fails, drop this and all later output."""
        try:
            if self.stream is not None:
                write()
        except (OSError, ValueError) as error:  # ValueError: closed by this process
            self.drop(error)

    def drop(self, error: Exception) -> None:
        """Lead later output nowhere; say so, unless the reader has merely left, as `head` does."""
        if not self.failed and self.name == "stdout" and not isinstance(error, BrokenPipeError):
            warn(f"standard output cannot be written ({error}): what would be printed is left out")
        self.failed = True
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        except (OSError, ValueError, AttributeError):
            return  # not a file of the system: later writes fail and are dropped as this one

    def isatty(self) -> bool:
        """Tell whether a person sees the output at once."""
        return self.stream is not None and not self.stream.closed and self.stream.isatty()

    def fileno(self) -> int:
        """Return the number of the file."""
        return self.stream.fileno()


STREAMS = {"stdout": OpenStream("stdout"), "stderr": OpenStream("stderr")}

# names in messages are never markup, nor :codes: of emoji
console = Console(file=STREAMS["stdout"], highlight=False, markup=False, emoji=False)  # type: ignore[arg-type]


def info(message: str) -> None:
    """Print a message for the user on standard output."""
    console.print(printable(message, keep_lines=True), soft_wrap=True)


@functools.cache  # data is listed more than once
def info_once(message: str) -> None:
    """Print a message for the user on standard output, once in a process."""
    info(message)


def warn(message: str) -> None:
    """Print a warning for the user on standard error."""
    print_line(f"jepa: {printable(message, keep_lines=True)}", "stderr")


def print_line(line: str, to: Literal["stdout", "stderr"] = "stdout") -> None:
    """Print a line; if the terminal or pipe is closed, drop this and all later output instead of failing."""
    STREAMS[to].write(f"{line}\n")
    STREAMS[to].flush()


def prepare_streams() -> None:
    """Let prints of other libraries, too, replace characters that the encoding lacks; occupy closed streams.

    A file that is opened while the number of a standard stream is free would get what is printed to that number.
    """
    codecs.register_error(ENCODING_ERRORS, substitute_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ENCODING_ERRORS)
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)


def draw_safely(what: str, draw: Callable[[], Drawn], tell: Callable[[str], object] = warn) -> Drawn | None:
    """Draw or print something beside the results; if that fails, tell what and why in one line and return None.

    A picture, a page or a table must not end a command: of everything that a command does, this alone may fail in any
    way. `tell` gets the line.
    """
    try:
        return draw()
    except Interrupted:
        raise
    except Exception as error:
        tell(f"{what} could not be drawn: {first_line(error)}")
        return None


def first_line(error: Exception) -> str:
    """Return what went wrong in one line; for errors that are not sentences, with their kind."""
    line = next(iter(str(error).splitlines()), "")
    return line if isinstance(error, UserError) else f"{type(error).__name__}{f' ({line})' if line else ''}"
