"""Read text files that list paths, as programs of Linux, macOS and Windows write them."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from openjepa.core.errors import UserError

BYTE_ORDER_MARKS = {  # the longer first: that of UTF-32 starts like that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\\w")  # C:\ or \\server
WEB_ADDRESS = re.compile(r"[a-z][a-z0-9+]+://", re.IGNORECASE)
SEPARATORS = re.compile(r"[,;\t ]")  # between a path and what follows it in a table


def read_path_list(file: Path) -> Iterator[str]:
    """Yield the paths in a text file, one per line, relative to the folder of that file.

    Reads UTF-8 and UTF-16, with or without a byte order mark, and the line ends of every system. A line is taken as it
    is if that names a file, otherwise without spaces and quotes at its ends, with / for \\, or in the encoding of
    Windows. Empty lines, and lines that start with # and name no file, are skipped.

    Raises:
        UserError: a line does not name a file, no line does, or the file is not text.
    """
    names_files = False
    for number, line in enumerate(re.split(r"\r\n|\n|\r", read_text(file)), 1):
        if not line.strip("\ufeff \t"):
            continue
        path = next((each for each in spellings(file.parent, line) if os.path.isfile(each)), None)  # noqa: PTH113 (False for any name)
        if path is not None:
            yield path
            names_files = True
        elif not line.lstrip().startswith("#"):
            raise UserError(f"line {number} of {file} is {shorten(line)!r}, {explain(file, line)}")
    if not names_files:
        raise UserError(f"{file} names no file: write one path per line, relative to the folder of the list")


def read_text(file: Path) -> str:
    """Return a text in UTF-8 or UTF-16; bytes that are not UTF-8 stay what they are, as in names of files.

    Raises UserError if the file is not text.
    """
    content = file.read_bytes()
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "")
    if not encoding and b"\0" in content[:2]:
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        text = content.decode(encoding or "utf-8", "surrogateescape" if encoding in ("", "utf-8-sig") else "strict")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not a text in {encoding} ({error.reason}): save it as UTF-8") from error
    if "\0" in text:
        raise UserError(f"{file} is not a text file: a list of paths has one path per line, in UTF-8")
    return text


def spellings(folder: Path, line: str) -> Iterator[str]:
    """Yield the paths that a line may mean, the most literal first."""
    plain = line.strip("\ufeff \t")
    unquoted = plain[1:-1] if len(plain) > 1 and plain[0] == plain[-1] and plain[0] in "\"'" else plain
    for name in dict.fromkeys((line, plain, unquoted)):
        for each in dict.fromkeys((name, name.replace("\\", "/"))):
            for form in dict.fromkeys((each, *other_encodings(each))):
                yield str(folder / os.path.expanduser(form))  # noqa: PTH111 (leaves ~ alone if there is no home)


def other_encodings(name: str) -> Iterator[str]:
    """Yield a name with composed and decomposed accents (macOS) and, if it is not UTF-8, as a text of Windows."""
    if not name.isascii():
        yield unicodedata.normalize("NFC", name)
        yield unicodedata.normalize("NFD", name)
        content = name.encode("utf-8", "surrogateescape")
        if any("\udc80" <= character <= "\udcff" for character in name):
            yield content.decode("cp1252", "replace")


def explain(file: Path, line: str) -> str:
    """Say why a line names no file, and what to do."""
    name = line.strip("\ufeff \t\"'")
    path = file.parent / os.path.expanduser(name.replace("\\", "/"))  # noqa: PTH111
    if WEB_ADDRESS.match(name):
        return "a web address: download the file and write its path"
    if DRIVE.match(name) and os.name != "nt":
        return "a path of Windows, which this machine does not have: write it relative to the folder of the list"
    if os.path.isdir(path):  # noqa: PTH112 (False for any name)
        return "a folder: a list names files; give the folder itself beside the list (--data.root LIST FOLDER)"
    for separator in SEPARATORS.finditer(name):
        first = name[: separator.start()].strip("\"' ")
        if first and any(map(os.path.isfile, spellings(file.parent, first))):
            return f"where only {first!r} is a file: a list has one path per line and nothing else"
    if os.path.isfile(name):  # noqa: PTH113
        return (
            "which is a file seen from the working folder, but paths are relative to the folder of the list: "
            "move the list here, or write absolute paths"
        )
    if similar := other_case(path):
        return f"but the file's name is {similar!r}: correct the path"
    return f"which is not a file below {file.parent}: remove the line or correct the path"


def other_case(path: Path) -> str | None:
    """Return the name of a file that differs from the path's only in upper and lower case."""
    if not os.path.isdir(path.parent):  # noqa: PTH112 (False for any name)
        return None
    return next((each for each in os.listdir(path.parent) if each.casefold() == path.name.casefold()), None)  # noqa: PTH208


def shorten(line: str) -> str:
    """Return a line for a message, at most 100 characters of it."""
    line = line.strip()
    return line if len(line) <= 100 else f"{line[:99]}…"
