"""Name files and runs in tables and legends so that no two look the same."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


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
