"""What `jepa doctor` learns of each file, whatever its modality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

ASPECTS = (1 / 4, 1 / 2, 1.0, 2.0, 4.0)  # of a histogram; larger and smaller ones count as the last


class Histogram(NamedTuple):
    """Values of all files, to be drawn."""

    label: str  # of the axis
    values: list[float]
    is_log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()  # values and their labels; empty: chosen


@runtime_checkable
class Facts(Protocol):
    """What a modality's `inspect` returns of each file."""

    meanings: ClassVar[dict[str, str]]  # finding -> what a training run does with such a file

    @property
    def path(self) -> str: ...
    @property
    def is_usable(self) -> bool: ...
    @property
    def findings(self) -> tuple[str, ...]: ...
    @property
    def reason(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def dhash(self) -> int:
        """Return a hash that near duplicates share but for a few bits; 0: none."""
        ...

    @classmethod
    def summarize(cls, facts: Sequence[Any]) -> list[tuple[str, ...]]:
        """Return the rows of a table about all files, the first one its header; none without usable files."""
        ...

    @classmethod
    def compare(cls, facts: Sequence[Any]) -> dict[str, list[str]]:
        """Return findings that only a look at all files gives, and the files that have them."""
        ...

    @classmethod
    def histograms(cls, facts: Sequence[Any]) -> list[Histogram]:
        """Return what to draw of usable files."""
        ...


class PictureFacts:
    """What the facts of images and videos share: a size in pixels, which is 0 if they cannot be decoded."""

    width: int
    height: int

    @property
    def is_usable(self) -> bool:
        return self.width > 0

    @classmethod
    def compare(cls, facts: Sequence[Any]) -> dict[str, list[str]]:
        """Return nothing: each file is judged by itself."""
        return {}

    @classmethod
    def histograms(cls, facts: Sequence[Any]) -> list[Histogram]:
        """Return the shorter side, and the aspect ratio."""
        sides = [float(min(each.width, each.height)) for each in facts]
        aspects = [max(ASPECTS[0], min(ASPECTS[-1], each.width / each.height)) for each in facts]
        names = tuple(zip(ASPECTS, ("1:4", "1:2", "1:1", "2:1", "4:1"), strict=True))
        return [
            Histogram("shorter side, pixels", sides, is_log=True),
            Histogram("aspect ratio (width : height)", aspects, is_log=True, ticks=names),
        ]
