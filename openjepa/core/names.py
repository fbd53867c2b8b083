"""Show names that come from elsewhere (of files, classes, runs, columns) as they are, without doing what they say."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

JOINERS = "\u200c\u200d"  # invisible, but scripts and emoji need them

BYTES_OFFSET = 0xDC00  # of the surrogates that stand for bytes of a name that is not UTF-8

SUBSTITUTES = {
    "→": "->", "←": "<-", "×": "x", "–": "-", "—": "-", "…": "...", "≥": ">=", "≤": "<=", "·": "*", "²": "^2",
    "±": "+/-", "≈": "~", "“": '"', "”": '"', "‘": "'", "’": "'", "↓": "(lower is better)", "•": "*", "°": " deg",
}  # fmt: skip

ENCODING_ERRORS = "openjepa.substitute"  # name of `substitute_characters` among the handlers of encoding errors


def printable(name: object, keep_lines: bool = False) -> str:
    """Return a name with everything escaped that moves the cursor, hides, or turns the text around it.

    Control characters, line breaks and marks of direction become escapes such as `\\n` and `\\u202e`, bytes that are
    not UTF-8 `\\xff`. All other names stay as they are. With `keep_lines`, so do line breaks and tabs.
    """
    text = str(name)
    if text.isprintable():
        return text
    return "".join(each if is_visible(each) or (keep_lines and each in "\n\t") else escape(each) for each in text)


def is_visible(character: str) -> bool:
    """Tell whether a character shows where it stands and changes nothing else."""
    category = unicodedata.category(character)
    if category == "Cf":
        return character in JOINERS or unicodedata.bidirectional(character) == "AN"
    return category not in ("Cc", "Cs", "Zl", "Zp")


def escape(character: str) -> str:
    """Return a character as an escape in ASCII; a surrogate that stands for a byte as that byte."""
    if BYTES_OFFSET + 0x80 <= ord(character) <= BYTES_OFFSET + 0xFF:
        return f"\\x{ord(character) - BYTES_OFFSET:02x}"
    return character.encode("unicode_escape").decode("ascii")


def shorten(name: object, length: int) -> str:
    """Return a printable name of at most `length` characters, with … in place of its middle."""
    text = printable(name)
    return text if len(text) <= length else f"{text[: (length - 1) // 2]}…{text[-(length // 2) :]}"


def substitute_characters(error: UnicodeError) -> tuple[str, int]:
    """Handle an encoding error: ASCII signs that mean the same, or else escapes that still tell names apart."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    failed = error.object[error.start : error.end]
    return "".join(SUBSTITUTES.get(each) or escape(each) for each in failed), error.end


def distinct_labels(paths: Sequence[Path | str]) -> list[str]:
    """Return the last part of each path, or as many of its last parts as tell it from the others: a/exp and b/exp."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]  # noqa: PTH100 (keeps the names of links)
    depths = [1] * len(parts)
    while True:
        labels = ["/".join(each[-depth:]) for each, depth in zip(parts, depths, strict=True)]
        counts = Counter(labels)
        deeper = [
            depth + (counts[label] > 1 and depth < len(each))
            for each, depth, label in zip(parts, depths, labels, strict=True)
        ]
        if deeper == depths:
            return labels
        depths = deeper
