"""Parts of the explorer's page as text."""

from __future__ import annotations

from openjepa.viz.canvas import COLORS

MARK_COLOR = COLORS[5]


def attribute(name: str) -> str:
    """Return a name for an attribute of the page; a quote or backslash would end the attribute."""
    return name.replace("\\", "/").replace('"', "'")


def svg_rectangle(first: tuple[float, float], last: tuple[float, float]) -> str:
    """Return an SVG rectangle between two corners, to lie over the image."""
    (left, right), (top, bottom) = (sorted((a, b)) for a, b in zip(first, last, strict=True))
    return (
        f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" '
        f'fill="none" stroke="{MARK_COLOR}" stroke-width="4" />'
    )
