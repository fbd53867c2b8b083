"""Command `jepa explore`: serve an interactive page about an encoder and a folder of images."""

from __future__ import annotations

from openjepa.viz.explorer.page import explore
from openjepa.viz.settings import Explore

__all__ = ["Explore", "explore"]
