"""Label files by a pattern in their names, and suggest one."""

from __future__ import annotations

import re
from collections import Counter

from openjepa.core.errors import UserError
from openjepa.data.labels.folders import Assignment
from openjepa.data.labels.paths import Parts
from openjepa.data.labels.words import SPLIT_OF_WORD

SUGGESTIONS = (  # tried on names without folders, in this order
    r"^([A-Za-z]+(?:[_ -][A-Za-z]+)*)[_ .-]*\d",  # cat.0.jpg, great_dane_12.jpg
    r"^([A-Za-z]+)[_ .-]",  # cat_a.jpg
    r"[_ -]([A-Za-z]+)\.\w+$",  # 0001_cat.jpg
    r"[_ -](\d{1,3})\.\w+$",  # 0001_3.jpg
)


def label_by_pattern(files: list[Parts], pattern: str) -> Assignment:
    """Assign the first group of a regular expression, or its group `label`; also of its groups `split` and `group`.

    The expression is searched in the path relative to the root, with `/` between folders.

    Raises:
        UserError: the expression is not valid, has no group, or matches no file.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--data.pattern {pattern!r} is not a regular expression ({error}): repair it") from error
    if not expression.groups:
        raise UserError(f"--data.pattern {pattern!r} has no group: put parentheses around the class")
    matches = [expression.search("/".join(parts)) for parts in files]
    if not any(matches):
        raise UserError(f"--data.pattern {pattern!r} matches no file, e.g. not {'/'.join(files[0])}")
    names = expression.groupindex
    labels = tuple((match["label"] if "label" in names else match[1]) or "" if match else "" for match in matches)
    splits = tuple(
        SPLIT_OF_WORD.get((match["split"] or "").lower(), "") if match and "split" in names else "" for match in matches
    )
    groups = tuple((match["group"] or "") if match else "" for match in matches) if "group" in names else ()
    return Assignment(labels, splits, f"classes are the matches of {pattern!r} in the names", {}, (), groups)


def suggest_pattern(names: list[str]) -> str:
    """Return a pattern that finds a few classes in nearly all names; empty if none does."""
    for pattern in SUGGESTIONS:
        matches = [match[1] for name in names if (match := re.search(pattern, name))]
        counts = Counter(matches)
        if len(matches) >= 0.9 * len(names) and 2 <= len(counts) <= len(names) / 3:
            return pattern
    return ""


def advise(files: list[Parts]) -> str:
    """Return what to type for files without labels: a pattern that their names have, or a table."""
    pattern = suggest_pattern([parts[-1] for parts in files[:5000]])
    if pattern:
        return f"their names may have classes: type --data.pattern '{pattern}'"
    return "put them into one folder for each class, or give a table: --data.labels FILE"
