"""Open the frames of a file. STUB"""

from __future__ import annotations

from openjepa.data.image_io import Undecodable

VIDEO_SUFFIXES = frozenset({".mp4"})


def open_frames(path, channels):
    raise Undecodable("stub")
