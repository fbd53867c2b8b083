"""Command `jepa explore`: open an interactive page on an encoder and a folder of pictures."""

from __future__ import annotations

from openjepa.viz.explorer.page import explore
from openjepa.viz.explorer.session import Explore

__all__ = ["Explore", "explore"]
